"""Does what a plan says, stage by stage, and believes nothing that it has not read back.

RabbitMQ answers 204 to changes that it does not make (the arguments of an exchange, say), so
what a stage wrote is read again and compared. A stage is the changes of one kind; reading back
costs one request a stage, however many objects it has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from broker.errors import AccessRefused, RabbitryError
from broker.management import Management
from broker.topology.objects import POLICY, VHOST, Objects
from broker.topology.observe import read_effective, read_kind
from broker.topology.plan import Change, Plan, differences, not_in_force
from broker.topology.write import write


@dataclass(frozen=True, slots=True)
class Failure:
    """A change that did not come about, and why."""

    change: Change
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a plan.

    Attributes:
        done: changes that were made and read back.
        failed: changes that RabbitMQ refused, or answered well and did not make.
        not_done: changes that were left alone: those that need a replacement, and those after
            a failure.
        warnings: settings that are written but not in force.
        error: what RabbitMQ or the network said when apply had to stop, or None.
    """

    done: tuple[Change, ...] = ()
    failed: tuple[Failure, ...] = ()
    not_done: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()
    error: RabbitryError | None = None

    @property
    def complete(self) -> bool:
        """Whether everything is as the topology says."""
        return not (self.failed or self.not_done or self.warnings)

    def document(self) -> dict[str, Any]:
        """Return the outcome as JSON."""
        return {
            "done": [change.document() for change in self.done],
            "failed": [{**each.change.document(), "failure": each.reason} for each in self.failed],
            "not_done": [change.document() for change in self.not_done],
            "warnings": list(self.warnings),
            "complete": self.complete,
        }


def apply(
    plan: Plan, management: Management, *, on_done: Callable[[Change], None] = lambda change: None
) -> Outcome:
    """Make the changes of a plan.

    Stops after the first stage in which something failed: later stages build on it. Nothing
    that would lose messages is ever tried: an object that RabbitMQ cannot change stays.

    Args:
        plan: what to do.
        management: the management API, with a user who may do it.
        on_done: told of each change when it is made and read back.

    Raises:
        AccessRefused: the user's tags do not suffice; nothing was written.
    """
    check_rights(plan, management)
    done: list[Change] = []
    failed: list[Failure] = []
    error: RabbitryError | None = None
    pending = [change for change in plan.changes if not change.blocked]
    not_done = [change for change in plan.changes if change.blocked]
    for (kind, _), stage in groupby(pending, key=lambda c: (c.identity.kind, c.action == "delete")):
        if failed:
            not_done += stage
            continue
        written: list[Change] = []
        for change in stage:
            if failed:
                not_done.append(change)
                continue
            try:
                write(change, plan.vhost, management)
            except RabbitryError as exc:
                error = exc
                failed.append(Failure(change, str(exc)))
            else:
                written.append(change)
        try:
            there = read_kind(management, plan.vhost, kind) if written else {}
        except RabbitryError as exc:
            error = error or exc
            failed += [Failure(change, f"not read back: {exc}") for change in written]
            continue
        for change in written:
            if reason := _still_wrong(change, there):
                failed.append(Failure(change, reason))
            else:
                done.append(change)
                on_done(change)
    order = {id(change): index for index, change in enumerate(plan.changes)}
    not_done.sort(key=lambda change: order[id(change)])
    warnings = () if error else _not_in_force(done, plan.vhost, management)
    return Outcome(tuple(done), tuple(failed), tuple(not_done), tuple(warnings), error)


def check_rights(plan: Plan, management: Management) -> None:
    """Check that the user's tags suffice for the plan.

    Raises:
        AccessRefused: names the tag and what it is needed for.
    """
    tags = management.get("whoami")["tags"]
    # RabbitMQ 3 wrote them with commas.
    held = set(tags.split(",") if isinstance(tags, str) else tags)
    needs = {VHOST: {"administrator"}, POLICY: {"administrator", "policymaker"}}
    for change in plan.changes:
        wanted = needs.get(change.identity.kind)
        if wanted and not held & wanted:
            raise AccessRefused(
                f"user {management.address.user!r} may not {change.action} {change.identity}: it"
                f" needs the tag {' or '.join(sorted(wanted))}; nothing was written"
            )


def _still_wrong(change: Change, there: Objects) -> str:
    identity, found = change.identity, there.get(change.identity)
    if change.after is None:
        return f"RabbitMQ said that it deleted {identity}, but it is still there" if found else ""
    if found is None:
        return f"RabbitMQ said that it declared {identity}, but it is not there"
    wrong = differences(change.after, found)
    if not wrong:
        return ""
    text = ", ".join(f"{each.attribute} is {each.before!r}, not {each.after!r}" for each in wrong)
    return f"RabbitMQ said that it declared {identity}, but {text}"


def _not_in_force(done: list[Change], vhost: str, management: Management) -> list[str]:
    policies = [change.after for change in done if change.after and change.after.covers]
    return [*not_in_force(policies, read_effective(management, vhost))] if policies else []
