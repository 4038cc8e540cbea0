"""From a topology to the objects it wants on RabbitMQ; pure but for the secrets it is asked for.

Structure becomes arguments, operation becomes generated policies (see `settings`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from broker.topology.cancellations import cancellation_objects
from broker.topology.compile_access import access_objects, limits_of
from broker.topology.effective import DEFAULTS
from broker.topology.ladder import ladder_objects
from broker.topology.model import Binding, Exchange, Queue, Topology
from broker.topology.objects import (
    EXCHANGE,
    GLOBAL_PARAMETER,
    OPERATOR_POLICY,
    PARAMETER,
    POLICY,
    QUEUE,
    VHOST,
    VHOST_LIMIT,
    Desired,
    Identity,
    Object,
    binding_identity,
    by_identity,
)
from broker.topology.operation import OperatorPolicy, Policy
from broker.topology.policies import Settings
from broker.topology.references import References
from broker.topology.settings import (
    EXCHANGE_SETTINGS,
    PROTECTION_SINCE,
    QUORUM,
    RETRY_SINCE,
    SETTINGS,
    known,
)
from broker.topology.source import DataPath
from broker.topology.token import token_objects
from broker.units import milliseconds

if TYPE_CHECKING:
    from broker.topology.timeouts import Need


def compile_topology(
    topology: Topology,
    *,
    vhost: str | None = None,
    version: str | None = None,
    secrets: bool = True,
    environ: Mapping[str, str] = os.environ,
) -> Desired:
    """Return what the topology wants on RabbitMQ.

    Args:
        topology: without errors of `lint.check`.
        vhost: the virtual host to use in place of the file's, as a URL may name one.
        version: RabbitMQ's, for a file that does not say which one it requires.
        secrets: whether to resolve references in users, shovels, federation and parameters;
            without, they stay as they stand, and users have no password.
        environ: the process's environment.

    Raises:
        TopologyError: a variable is not set, or a file cannot be read.
    """
    name = vhost if vhost is not None else topology.vhost.name
    references = References(topology.source, environ if secrets else None)
    requires = topology.broker.requires or version
    objects = _objects(topology, name, references, requires)
    return Desired(topology.name, name, by_identity(objects))


def _objects(
    topology: Topology,
    vhost: str,
    references: References,
    requires: str | None,
    *,
    derive: bool = True,
) -> Iterator[Object]:
    yield _vhost(topology, vhost, requires)
    for limit, value in limits_of(topology.limits):
        yield Object(Identity(VHOST_LIMIT, (limit,)), {"value": value}, ("limits",))
    yield from access_objects(topology, references, requires)
    for name, exchange in topology.exchanges.items():
        yield _exchange(name, exchange)
        yield from _bindings("exchange", name, exchange.bindings)
    for name, queue in topology.queues.items():
        yield _queue(name, queue)
        yield from _bindings("queue", name, queue.bindings)
    yield from ladder_objects(topology, requires)
    yield from token_objects(topology)
    yield from cancellation_objects(topology)
    for name, operator in topology.operator_policies.items():
        yield _policy(OPERATOR_POLICY, name, operator, ("operator_policies", name))
    for name, policy in topology.policies.items():
        yield _policy(POLICY, name, policy, ("policies", name))
    timeouts = derived_timeouts(topology, version=requires) if derive else {}
    yield from _generated(topology, requires, timeouts)
    yield from _parameters(topology, references)


def generated_policies(topology: Topology, *, version: str | None = None) -> Iterator[Object]:
    """Yield the policies that the settings of queues and exchanges come to.

    Args:
        topology: the topology.
        version: RabbitMQ's, where the topology requires none; None is the newest.
    """
    requires = topology.broker.requires or version
    yield from _generated(topology, requires, derived_timeouts(topology, version=requires))


def derived_timeouts(topology: Topology, *, version: str | None = None) -> Mapping[str, Need]:
    """Return the consumer time-outs of queues that follow from time limits.

    Args:
        topology: the topology.
        version: RabbitMQ's, where the topology requires none; None is the newest.

    Returns:
        By queue; those that state a time-out are left out, and those for which RabbitMQ's is
        long enough.
    """
    # Both are made of what is compiled here.
    from broker.topology.route import Router
    from broker.topology.timeouts import derived, states_limits

    if not states_limits(topology):
        return {}
    requires, references = topology.broker.requires or version, References(topology.source, None)
    objects = _objects(topology, topology.vhost.name, references, requires, derive=False)
    default_ms = DEFAULTS[QUORUM]["consumer-timeout"]
    return derived(topology, Router(by_identity(objects)), default_ms=default_ms)


def _generated(
    topology: Topology, requires: str | None, timeouts: Mapping[str, Need]
) -> Iterator[Object]:
    settings = Settings(topology.name)
    for name, exchange in topology.exchanges.items():
        definition = {
            key: value
            for field, key in EXCHANGE_SETTINGS.items()
            if (value := getattr(exchange, field)) is not None
        }
        settings.add(name, type="exchange", definition=definition)
    for name, queue in topology.queues.items():
        definition = policy_definition(queue, requires=requires)
        if name in timeouts:
            definition["consumer-timeout"] = timeouts[name].timeout_ms
        settings.add(name, type=queue.type, definition=definition)
    yield from settings.policies()


def _vhost(topology: Topology, name: str, requires: str | None) -> Object:
    # Only what the file says is compared later: several files may share a virtual host.
    said = topology.vhost.model_fields_set - {"name"}
    attributes: dict[str, Any] = {
        key: getattr(topology.vhost, key)
        for key in ("default_queue_type", "description", "tags", "protected_from_deletion")
        if key in said and getattr(topology.vhost, key) is not None
    }
    if not known(PROTECTION_SINCE, requires):
        attributes.pop("protected_from_deletion", None)
    if "tags" in attributes:
        # A set to RabbitMQ: their order means nothing.
        attributes["tags"] = sorted(set(attributes["tags"]))
    return Object(Identity(VHOST, (name,)), attributes, ("vhost",))


def _exchange(name: str, exchange: Exchange) -> Object:
    return Object(
        Identity(EXCHANGE, (name,)),
        {
            "type": exchange.type,
            "durable": exchange.durable,
            "auto_delete": exchange.auto_delete,
            "internal": exchange.internal,
            "arguments": exchange.arguments,
        },
        ("exchanges", name),
        protected=exchange.protected,
    )


def _queue(name: str, queue: Queue) -> Object:
    arguments = {
        setting.key: setting.encode(value)
        for key, setting in SETTINGS.items()
        if setting.where == "argument" and (value := getattr(queue, key)) not in (None, False)
    }
    return Object(
        Identity(QUEUE, (name,)),
        {
            "type": queue.type,
            "durable": queue.durable,
            "auto_delete": queue.auto_delete,
            "arguments": arguments | queue.arguments,
        },
        ("queues", name),
        protected=queue.protected,
    )


def policy_definition(queue: Queue, *, requires: str | None = None) -> dict[str, Any]:
    """Return the policy keys that a queue's settings come to.

    Args:
        queue: the queue.
        requires: the least version of RabbitMQ. What it does not know is left out: a policy with
            one unknown key would not apply at all.
    """
    definition = {
        setting.key: setting.encode(value)
        for key, setting in SETTINGS.items()
        if setting.where == "policy"
        and (value := getattr(queue, key)) is not None
        and known(setting.since, requires)
    }
    if (retry := queue.retry) is not None:
        if known(RETRY_SINCE, requires):
            definition["delayed-retry-type"] = retry.type
            definition["delayed-retry-min"] = milliseconds(retry.delay)
            if retry.max_delay is not None:
                definition["delayed-retry-max"] = milliseconds(retry.max_delay)
        if retry.limit is not None:
            definition["delivery-limit"] = retry.limit
    if (letter := queue.dead_letter) is not None:
        definition["dead-letter-exchange"] = letter.exchange
        if letter.routing_key is not None:
            definition["dead-letter-routing-key"] = letter.routing_key
        # Classic queues know no strategy; a policy with this key would not apply to them.
        if queue.type == QUORUM:
            strategy = letter.strategy or "at-least-once"
            definition["dead-letter-strategy"] = strategy
            if strategy == "at-least-once":
                # Without it RabbitMQ falls back to at-most-once, with a line in its log only:
                # https://www.rabbitmq.com/docs/quorum-queues#dead-lettering
                definition["overflow"] = "reject-publish"
    return definition


def _bindings(kind: str, name: str, bindings: Iterable[Binding]) -> Iterator[Object]:
    section = "queues" if kind == "queue" else "exchanges"
    for index, binding in enumerate(bindings):
        identity = binding_identity(
            source=binding.exchange,
            kind=kind,
            destination=name,
            routing_key=binding.routing_key,
            arguments=binding.arguments,
        )
        path: DataPath = (section, name, "bindings", index)
        yield Object(identity, {}, path)


def _policy(kind: str, name: str, policy: Policy | OperatorPolicy, path: DataPath) -> Object:
    return Object(
        Identity(kind, (name,)),
        {
            "apply-to": policy.apply_to,
            "pattern": policy.pattern,
            "priority": policy.priority,
            "definition": policy.definition,
        },
        path,
        protected=policy.protected,
    )


def _parameters(topology: Topology, references: References) -> Iterator[Object]:
    federation = topology.federation
    for name, shovel in topology.shovels.items():
        path: DataPath = ("shovels", name)
        yield _parameter("shovel", name, shovel.value(), path, references, shovel.protected)
    for name, upstream in federation.upstreams.items():
        path = ("federation", "upstreams", name)
        component = "federation-upstream"
        value = upstream.value()
        yield _parameter(component, name, value, path, references, upstream.protected)
    for name, members in federation.upstream_sets.items():
        path = ("federation", "upstream_sets", name)
        value_of_set = [member.value() for member in members]
        yield _parameter("federation-upstream-set", name, value_of_set, path, references)
    for component, parameters in topology.parameters.items():
        for name, value in parameters.items():
            path = ("parameters", component, name)
            yield _parameter(component, name, value, path, references)
    for name, value in topology.global_parameters.items():
        path = ("global_parameters", name)
        resolved, secrets = references.attribute("value", value, path)
        identity = Identity(GLOBAL_PARAMETER, (name,))
        # An empty mapping comes back as an empty list, though only when it is the whole value.
        stored = [] if resolved == {} else resolved
        yield Object(identity, {"value": stored}, path, secrets=secrets)


def _parameter(
    component: str,
    name: str,
    value: Any,
    path: DataPath,
    references: References,
    protected: bool = False,
) -> Object:
    resolved, secrets = references.attribute("value", value, path)
    identity = Identity(PARAMETER, (component, name))
    return Object(identity, {"value": resolved}, path, protected=protected, secrets=secrets)
