"""What changed on the broker behind the file's back; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from broker.topology.changes import Change, Difference, Plan
from broker.topology.look import Look
from broker.topology.objects import (
    BINDING,
    EXCHANGE,
    OPERATOR_POLICY,
    POLICY,
    QUEUE,
    VHOST_LIMIT,
    Desired,
    Identity,
    Observed,
)
from broker.topology.obsolete import PROTECTED, ends
from broker.topology.ownership import Records
from broker.topology.rivals import reaches

What = Literal["changed", "deleted", "missing", "added"]
_WORDS = {
    "changed": "changed on the broker",
    "deleted": "deleted on the broker",
    "missing": "not on the broker: it was never applied",
    "added": "added on the broker",
}


@dataclass(frozen=True, slots=True)
class Drift:
    """One object that is not as the file says.

    Attributes:
        what: changed, deleted, missing (never applied) or added.
        identity: which object.
        differences: attribute by attribute; before is RabbitMQ's, after the file's.
        effect: what an added object alters, or "".
    """

    what: What
    identity: Identity
    differences: tuple[Difference, ...] = ()
    effect: str = ""

    def __str__(self) -> str:
        return f"{self.identity}: {_WORDS[self.what]}" + (f", {self.effect}" if self.effect else "")

    def document(self) -> dict[str, Any]:
        """Return the drift as JSON."""
        return {
            "what": self.what,
            "kind": self.identity.kind,
            "name": list(self.identity.name),
            "differences": [
                {"attribute": each.attribute, "file": each.after, "broker": each.before}
                for each in self.differences
            ],
            "effect": self.effect,
        }


def find_drift(found: Look) -> list[Drift]:
    """Return all that differs on RabbitMQ from what the file says, and what alters it.

    What the file no longer names is left out: that is the file's change.
    """
    # A protected object that somebody made anew has drifted, although apply leaves it alone.
    drifts = [
        _changed(change, found.records)
        for change in found.plan.changes
        if not change.hindrance or (change.after is not None and change.hindrance == PROTECTED)
    ]
    return [*drifts, *_added(found.plan, found.desired, found.observed)]


def _changed(change: Change, records: Records) -> Drift:
    if change.action == "create":
        known = change.identity in records.own.objects
        return Drift("deleted" if known else "missing", change.identity)
    if change.action == "delete":
        return Drift("added", change.identity, effect="a generated policy that nothing asks for")
    return Drift("changed", change.identity, change.shown_differences())


def _added(plan: Plan, desired: Desired, observed: Observed) -> Iterator[Drift]:
    """Yield what others made that alters what the file describes."""
    ours = [
        (each.identity, "exchange" if each.identity.kind == EXCHANGE else each.attributes["type"])
        for each in desired.objects.values()
        if each.identity.kind in (EXCHANGE, QUEUE)
    ]
    limits = any(each.kind == VHOST_LIMIT for each in desired.objects)
    for identity in plan.unmanaged:
        if identity.kind in (POLICY, OPERATOR_POLICY):
            effect = _effect(identity, ours, desired, observed)
            if effect:
                yield Drift("added", identity, effect=effect)
        elif (identity.kind == BINDING and ends(identity)[1] in desired.objects) or (
            identity.kind == VHOST_LIMIT and limits
        ):
            yield Drift("added", identity)


def _effect(
    identity: Identity,
    ours: Iterable[tuple[Identity, str]],
    desired: Desired,
    observed: Observed,
) -> str:
    """Say what a policy of others does to our objects, or "" where it does nothing."""
    policy = observed.objects[identity]
    hidden, alone = [], []
    for target, type_ in ours:
        name = target.name[0]
        if not reaches(policy, type=type_, name=name):
            continue
        if identity.kind == OPERATOR_POLICY:
            alone.append(target)
            continue
        rivals = [
            each
            for each in desired.objects.values()
            if each.identity.kind == POLICY and reaches(each, type=type_, name=name)
        ]
        if not rivals:
            alone.append(target)
        elif policy.attributes["priority"] >= max(each.attributes["priority"] for each in rivals):
            hidden.append(target)
    parts = []
    if hidden:
        parts.append(f"it hides the file's policy on {_listed(hidden)}")
    if alone:
        parts.append(f"it applies to {_listed(alone)}")
    return " and ".join(parts)


def _listed(identities: list[Identity]) -> str:
    shown = ", ".join(str(each) for each in identities[:3])
    return shown + (f" and {len(identities) - 3} more" if len(identities) > 3 else "")
