"""What a worker needs on RabbitMQ, looked at before it consumes; nothing is declared.

Over AMQP only the existence of a queue or an exchange can be asked for. Settings are compared over
HTTP, where the worker's user may read them; where it may not, the log says so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from broker.connection import Address, connect, translated
from broker.errors import (
    BrokerUnavailable,
    MissingOnBroker,
    ProvisioningFailed,
    Unreachable,
)
from broker.management import Management
from broker.topology import Topology
from broker.topology.compile import compile_topology
from broker.topology.effective import Policies, Setting, find, settings_of
from broker.topology.objects import OPERATOR_POLICY, POLICY, QUEUE, Identity, Object
from consumers.errors import QueueDiffers
from consumers.pulse import Pulse

logger = logging.getLogger("rabbitry.worker")

RETRY_FIRST_S, RETRY_MOST_S = 0.5, 10.0
# HTTP that is slow or down must not keep a worker from its queues.
COMPARE_S = 2.0
_EFFECTIVE = "effective_policy_definition"


def check_existence(
    address: Address,
    queues: Iterable[str],
    exchanges: Iterable[str],
    *,
    wait: bool = True,
    pulse: Pulse | None = None,
) -> None:
    """Check that queues and exchanges exist.

    Args:
        address: where RabbitMQ is.
        queues: that are consumed.
        exchanges: that dead letters are published to.
        wait: for a RabbitMQ that does not answer, for as long as it takes.
        pulse: of the worker, which waits.

    Raises:
        MissingOnBroker: one does not.
        Unreachable: nobody answers, and it is not to be waited for.
        AccessRefused, VirtualHostMissing: waiting does not mend these.
    """
    pause_s = RETRY_FIRST_S
    while True:
        try:
            return _look_for(address, list(queues), list(exchanges))
        except Unreachable as exc:
            if not wait:
                raise
            if pulse is not None:
                pulse.beat()
                pulse.trouble = str(exc)
            logger.warning("%s; trying again in %g s", exc, pause_s)
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, RETRY_MOST_S)


def _look_for(address: Address, queues: list[str], exchanges: list[str]) -> None:
    from amqp.exceptions import NotFound

    connection = connect(address)
    try:
        for kind, name in [*(("queue", q) for q in queues), *(("exchange", e) for e in exchanges)]:
            with translated(address), connection.channel() as channel:
                try:
                    if kind == "queue":
                        channel.queue_declare(name, passive=True)
                    else:
                        channel.exchange_declare(name, "topic", passive=True)
                except NotFound as exc:
                    raise MissingOnBroker(
                        f"the {kind} {name!r} does not exist in virtual host"
                        f" {address.vhost_name!r}; `rabbitry topology apply` creates it"
                    ) from exc
    finally:
        connection.release()


def check_settings(topology: Topology, address: Address, queues: Iterable[str]) -> None:
    """Compare what is in force on queues with the file, where the user may read it.

    Raises:
        QueueDiffers: names the queue, each setting that differs, and both values.
    """
    deadline = time.monotonic() + COMPARE_S
    try:
        with Management(address, timeout_s=COMPARE_S / 2) as management:
            version = management.version()
            desired = compile_topology(topology, secrets=False, version=version).objects
            policies = Policies(desired)
            for name in queues:
                if time.monotonic() > deadline:
                    raise Unreachable("RabbitMQ's management API is slow")
                wanted = find(desired, QUEUE, name)
                # With statistics RabbitMQ tells of policies as they were some seconds ago.
                there = management.find(
                    "queues",
                    address.vhost_name,
                    name,
                    disable_stats=True,
                    enable_queue_totals=True,
                )
                if wanted is None or there is None:
                    continue
                live = Policies({each.identity: each for each in _in_force(there, management)})
                _compare(name, wanted, settings_of(wanted, policies), there, live)
    except (BrokerUnavailable, ProvisioningFailed, MissingOnBroker) as exc:
        logger.info("the settings of the queues are not compared with the file: %s", exc)


def _compare(
    name: str,
    wanted: Object,
    settings: Mapping[str, Setting],
    there: Mapping[str, Any],
    live: Policies,
) -> None:
    type_ = str(there.get("type") or wanted.attributes["type"])
    found = Object(
        Identity(QUEUE, (name,)), {"type": type_, "arguments": dict(there.get("arguments") or {})}
    )
    clauses = list(_differences(wanted, settings, found, settings_of(found, live)))
    if clauses:
        raise QueueDiffers(
            f"the queue {name!r} is not what the file says: {'; '.join(clauses)};"
            " `rabbitry topology plan` shows it, `rabbitry topology apply` mends it",
            queue=name,
        )


def _in_force(there: Mapping[str, Any], management: Management) -> Iterator[Object]:
    if _EFFECTIVE in there:
        # An empty definition comes as an empty list.
        yield _policy(there[_EFFECTIVE] or {})
        return
    # RabbitMQ 4.0 tells which policy is in force, not what comes of it, and no operator's.
    vhost = management.address.vhost_name
    if name := there.get("policy"):
        answer = management.find("policies", vhost, name) or {}
        yield _policy(answer.get("definition") or {})
    for each in management.get("operator-policies", vhost):
        keys = ("pattern", "apply-to", "priority", "definition")
        yield Object(Identity(OPERATOR_POLICY, (each["name"],)), {key: each[key] for key in keys})


def _policy(definition: Mapping[str, Any]) -> Object:
    return Object(
        Identity(POLICY, ("in force",)),
        {"pattern": "", "apply-to": "queues", "priority": 0, "definition": dict(definition)},
    )


def _differences(
    wanted: Object, settings: Mapping[str, Setting], found: Object, live: Mapping[str, Setting]
) -> Iterator[str]:
    type_, live_type = wanted.attributes["type"], found.attributes["type"]
    if type_ != live_type:
        yield f"it is a {live_type} queue, and the file says {type_}"
        return
    for key in sorted((settings.keys() | live.keys()) - {"queue-type"}):
        says = settings[key].holds.value if key in settings else None
        has = live[key].holds.value if key in live else None
        if says != has:
            yield f"{key} is {_shown(has)}, and the file says {_shown(says)}"


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)
