"""From a topology to the objects it wants on RabbitMQ; pure.

Structure becomes arguments, operation becomes generated policies (see `settings`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from broker.topology.model import Binding, Exchange, Queue, Topology
from broker.topology.objects import (
    EXCHANGE,
    QUEUE,
    VHOST,
    Desired,
    Identity,
    Object,
    binding_identity,
    by_identity,
)
from broker.topology.policies import Settings
from broker.topology.settings import QUORUM, SETTINGS
from broker.topology.source import DataPath
from broker.units import milliseconds


def compile_topology(topology: Topology, *, vhost: str | None = None) -> Desired:
    """Return what the topology wants on RabbitMQ.

    Args:
        topology: without errors of `lint.check`.
        vhost: the virtual host to use in place of the file's, as a URL may name one.
    """
    name = vhost if vhost is not None else topology.vhost.name
    return Desired(topology.name, name, by_identity(_objects(topology, name)))


def _objects(topology: Topology, vhost: str) -> Iterator[Object]:
    settings = Settings(topology.name)
    yield _vhost(topology, vhost)
    for name, exchange in topology.exchanges.items():
        yield _exchange(name, exchange)
        yield from _bindings("exchange", name, exchange.bindings)
        if exchange.alternate_exchange is not None:
            definition = {"alternate-exchange": exchange.alternate_exchange}
            settings.add(name, type="exchange", definition=definition)
    for name, queue in topology.queues.items():
        yield _queue(name, queue)
        yield from _bindings("queue", name, queue.bindings)
        settings.add(name, type=queue.type, definition=policy_definition(queue))
    yield from settings.policies()


def _vhost(topology: Topology, name: str) -> Object:
    # Only what the file says is compared later: several files may share a virtual host.
    said = topology.vhost.model_fields_set - {"name"}
    attributes: dict[str, Any] = {
        key: getattr(topology.vhost, key)
        for key in ("default_queue_type", "description", "tags")
        if key in said
    }
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
    )


def policy_definition(queue: Queue) -> dict[str, Any]:
    """Return the policy keys that a queue's settings come to."""
    definition = {
        setting.key: setting.encode(value)
        for key, setting in SETTINGS.items()
        if setting.where == "policy" and (value := getattr(queue, key)) is not None
    }
    if (retry := queue.retry) is not None:
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
