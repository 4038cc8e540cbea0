"""Writes many changes of one kind fast: in one import where the user may, else side by side.

RabbitMQ imports definitions several times faster than it takes single requests, but answers
204 also for what it did not do: whoever writes reads back and compares.
https://www.rabbitmq.com/docs/definitions
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from broker.errors import BrokerUnavailable, ProvisioningFailed, RabbitryError
from broker.management import Management
from broker.topology.changes import Change
from broker.topology.objects import BINDING, EXCHANGE, POLICY, QUEUE
from broker.topology.write import write

# Fewer are written one by one: each then has its own answer.
FEW = 20
# Between two requests of this size the lock is asked for again.
AT_ONCE = 500
SIDE_BY_SIDE = 4
_SECTIONS = {EXCHANGE: "exchanges", POLICY: "policies", QUEUE: "queues", BINDING: "bindings"}


@dataclass(frozen=True, slots=True)
class Failure:
    """A change that did not come about, and why."""

    change: Change
    reason: str


@dataclass(slots=True)
class Written:
    """What became of writing some changes.

    Attributes:
        written: changes that RabbitMQ took; whether it made them, reading back tells.
        failed: changes that it refused.
        not_tried: changes after a failure.
        error: the first error.
    """

    written: list[Change] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    not_tried: list[Change] = field(default_factory=list)
    error: RabbitryError | None = None

    def fail(self, change: Change, error: RabbitryError) -> None:
        """Note that a change failed."""
        self.error = self.error or error
        self.failed.append(Failure(change, str(error)))


def write_all(
    changes: Sequence[Change],
    vhost: str,
    management: Management,
    *,
    imports: bool,
    check: Callable[[], None],
) -> Written:
    """Write changes of one kind.

    Args:
        changes: the changes, none of which depends on another.
        vhost: the virtual host.
        management: the management API.
        imports: whether the user may import definitions.
        check: raises where writing must stop; called between requests.
    """
    outcome = Written()
    for part in _parts(changes):
        if outcome.failed:
            outcome.not_tried += part
            continue
        try:
            check()
        except RabbitryError as exc:
            outcome.error = outcome.error or exc
            outcome.not_tried += part
            continue
        if len(part) < FEW:
            _one_by_one(part, vhost, management, outcome, check)
        elif not (imports and _import(part, vhost, management)):
            _side_by_side(part, vhost, management, outcome)
        else:
            outcome.written += part
    return outcome


def _parts(changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
    for start in range(0, len(changes), AT_ONCE):
        yield changes[start : start + AT_ONCE]


def _one_by_one(
    changes: Sequence[Change],
    vhost: str,
    management: Management,
    outcome: Written,
    check: Callable[[], None],
) -> None:
    for index, change in enumerate(changes):
        try:
            if index:
                check()
        except RabbitryError as exc:
            outcome.error = outcome.error or exc
            outcome.not_tried += changes[index:]
            return
        try:
            write(change, vhost, management)
        except RabbitryError as exc:
            outcome.fail(change, exc)
            outcome.not_tried += changes[index + 1 :]
            return
        outcome.written.append(change)


def _side_by_side(
    changes: Sequence[Change], vhost: str, management: Management, outcome: Written
) -> None:
    def several(mine: Sequence[Change]) -> Written:
        with Management(management.address) as client:
            found = Written()
            _one_by_one(mine, vhost, client, found, lambda: None)
            return found

    with ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        shares = [changes[first::SIDE_BY_SIDE] for first in range(SIDE_BY_SIDE)]
        for each in threads.map(several, shares):
            outcome.written += each.written
            outcome.failed += each.failed
            outcome.not_tried += each.not_tried
            outcome.error = outcome.error or each.error


def _import(changes: Sequence[Change], vhost: str, management: Management) -> bool:
    """Import new objects as definitions; return False where that is not the way."""
    section = _SECTIONS.get(changes[0].identity.kind)
    if section is None or any(change.action != "create" for change in changes):
        return False
    try:
        management.post("definitions", vhost, body={section: [_definition(c) for c in changes]})
    except (ProvisioningFailed, BrokerUnavailable):
        # One of them is refused, or the node is slow: one by one each has its own answer,
        # and what the import made already is declared again without harm.
        return False
    return True


def _definition(change: Change) -> dict[str, Any]:
    assert change.after is not None
    identity = change.identity
    if identity.kind != BINDING:
        body = {"name": identity.name[0], **change.after.attributes}
        if identity.kind == QUEUE:
            # Always explicit: the virtual host's default may change.
            body["arguments"] = {"x-queue-type": body.pop("type"), **body["arguments"]}
        return body
    source, kind, destination, routing_key, arguments = identity.name
    return {
        "source": source,
        "destination": destination,
        "destination_type": kind,
        "routing_key": routing_key,
        "arguments": json.loads(arguments),
    }
