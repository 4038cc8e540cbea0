"""What has to change so that RabbitMQ is as the topology says; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from broker.topology.objects import (
    CHANGEABLE,
    CREATION_ORDER,
    EXCHANGE,
    PARTIAL,
    POLICY,
    QUEUE,
    Desired,
    Identity,
    Object,
    Observed,
    canonical,
    flat,
)
from broker.topology.policies import APPLY_TO, PRIORITY, owner_of

Action = Literal["create", "update", "replace", "delete"]
_ABSENT: Any = object()


@dataclass(frozen=True, slots=True)
class Difference:
    """An attribute that is not as it should be; None where it is absent."""

    attribute: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Change:
    """One object that has to change.

    Attributes:
        action: create, update in place, replace (delete and create anew), or delete.
        identity: which object.
        before: what RabbitMQ has, or None.
        after: what the topology wants, or None.
        differences: attribute by attribute, for update and replace.
        reason: why it must be replaced or deleted.
    """

    action: Action
    identity: Identity
    before: Object | None = None
    after: Object | None = None
    differences: tuple[Difference, ...] = ()
    reason: str = ""

    @property
    def blocked(self) -> bool:
        """Whether apply leaves this to people."""
        return self.action == "replace"

    def document(self) -> dict[str, Any]:
        """Return the change as JSON."""
        return {
            "action": self.action,
            "kind": self.identity.kind,
            "name": list(self.identity.name)
            if len(self.identity.name) > 1
            else self.identity.name[0],
            "before": None if self.before is None else dict(self.before.attributes),
            "after": None if self.after is None else dict(self.after.attributes),
            "differences": [
                {"attribute": each.attribute, "before": each.before, "after": each.after}
                for each in self.differences
            ],
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes, in the order of doing them, and what is left alone.

    Attributes:
        owner, vhost, version: the topology, the virtual host, RabbitMQ's version.
        changes: what differs.
        unmanaged: objects that the topology does not name; nothing happens to them.
        warnings: what would keep the topology from taking effect.
    """

    owner: str
    vhost: str
    version: str
    changes: tuple[Change, ...]
    unmanaged: tuple[Identity, ...]
    warnings: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether there is nothing to do."""
        return not self.changes

    def document(self) -> dict[str, Any]:
        """Return the plan as JSON."""
        return {
            "topology": self.owner,
            "vhost": self.vhost,
            "broker": self.version,
            "changes": [change.document() for change in self.changes],
            "same": self.same,
            "unmanaged": [{"kind": each.kind, "name": list(each.name)} for each in self.unmanaged],
            "warnings": list(self.warnings),
        }


def make_plan(desired: Desired, observed: Observed) -> Plan:
    """Compare what is wanted with what is there."""
    changes = [
        change
        for each in desired.objects.values()
        if (change := _compare(each, observed.objects.get(each.identity))) is not None
    ]
    changes.sort(key=lambda change: _order(change, desired))
    own: list[Object] = []
    foreign: list[Object] = []
    for identity, there in observed.objects.items():
        if identity not in desired.objects:
            is_own = identity.kind == POLICY and owner_of(identity.name[0]) == desired.owner
            (own if is_own else foreign).append(there)
    # Obsolete policies go last, when those that take their place are in force.
    changes += [
        Change("delete", each.identity, before=each, reason="no object has these settings any more")
        for each in sorted(own, key=lambda each: _position(each.identity))
    ]
    in_place = [
        each
        for each in desired.objects.values()
        if each.covers and each.identity in observed.objects
    ]
    warnings = [*_hidden(desired, foreign)] or [*not_in_force(in_place, observed.effective)]
    return Plan(
        desired.owner,
        desired.vhost,
        observed.version,
        tuple(changes),
        tuple(sorted((each.identity for each in foreign), key=_position)),
        tuple(warnings),
    )


def differences(wanted: Object, there: Object) -> tuple[Difference, ...]:
    """Return what differs between two states of one object, in a steady order."""
    after = dict(flat(wanted.attributes))
    before = dict(flat(there.attributes))
    names = list(after)
    if wanted.identity.kind not in PARTIAL:
        names += sorted(name for name in before if name not in after)
    return tuple(
        Difference(name, before.get(name), after.get(name))
        for name in names
        if not _equal(before.get(name, _ABSENT), after.get(name, _ABSENT))
    )


def _compare(wanted: Object, there: Object | None) -> Change | None:
    if there is None:
        return Change("create", wanted.identity, after=wanted)
    found = differences(wanted, there)
    if not found:
        return None
    action: Action = "update" if wanted.identity.kind in CHANGEABLE else "replace"
    reason = "" if action == "update" else _why_replace(wanted.identity, found)
    return Change(action, wanted.identity, there, wanted, found, reason)


def _why_replace(identity: Identity, found: tuple[Difference, ...]) -> str:
    attributes = ", ".join(each.attribute for each in found)
    return f"RabbitMQ cannot change {attributes} of {_an(identity.kind)} that exists"


def _equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    # == first, as it is fast; it also holds 1, 1.0 and True equal, which RabbitMQ does not.
    return one is not _ABSENT and bool(one == other) and canonical(one) == canonical(other)


def _position(identity: Identity) -> tuple[int, tuple[str, ...]]:
    return CREATION_ORDER.index(identity.kind), identity.name


def _order(change: Change, desired: Desired) -> tuple[int, int, tuple[str, ...]]:
    kind, name = _position(change.identity)
    rank = 0 if change.action == "create" else 1
    if change.action == "update" and change.identity.kind == POLICY:
        # A policy lets go of a queue only when the one that takes it over is in force.
        rank += _lets_go(change, desired)
    return kind, rank, name


def _lets_go(change: Change, desired: Desired) -> bool:
    assert change.before is not None
    assert change.after is not None
    expression = _expression(change.before.attributes["pattern"])
    return expression is not None and any(
        each.identity.kind in (EXCHANGE, QUEUE)
        and each.identity.name[0] not in change.after.covers
        and expression.search(each.identity.name[0])
        for each in desired.objects.values()
    )


def _an(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def not_in_force(
    policies: Iterable[Object], effective: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Yield the queues on which a generated policy exists but does not show.

    Args:
        policies: generated policies that RabbitMQ has.
        effective: the policy settings in force on each queue that exists.
    """
    for policy in policies:
        wanted = policy.attributes["definition"]
        for name in policy.covers:
            # Keys only: an operator policy may rightly lower a value.
            absent = sorted(wanted.keys() - effective.get(name, wanted).keys())
            if absent and policy.attributes["apply-to"] != APPLY_TO["exchange"]:
                yield (
                    f"{policy.identity} is not in force on queue {name!r}"
                    f" ({', '.join(absent)} missing): another policy hides it, or the queue has"
                    " another type"
                )


def _hidden(desired: Desired, foreign: list[Object]) -> Iterator[str]:
    """Yield which generated policies other policies of the virtual host would hide."""
    rivals = [
        (each, expression)
        for each in foreign
        if each.identity.kind == POLICY
        and each.attributes["priority"] >= PRIORITY
        and (expression := _expression(each.attributes["pattern"])) is not None
    ]
    types = {apply_to: type_ for type_, apply_to in APPLY_TO.items()}
    for policy in desired.objects.values() if rivals else ():
        type_ = types.get(policy.attributes.get("apply-to", ""), "")
        for name in policy.covers:
            for rival, expression in rivals:
                if _applies(rival.attributes["apply-to"], type_) and expression.search(name):
                    yield (
                        f"{rival.identity} (priority {rival.attributes['priority']}) hides"
                        f" {policy.identity} (priority {PRIORITY}) on {type_} {name!r}: give it a"
                        " priority below, or a narrower pattern"
                    )


def _applies(apply_to: str, type_: str) -> bool:
    wide = {"all", "exchanges"} if type_ == "exchange" else {"all", "queues"}
    return apply_to in wide | {APPLY_TO[type_]}


def _expression(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern)
    except re.error:
        # Erlang's dialect knows more than Python's; what it matches stays unknown.
        return None
