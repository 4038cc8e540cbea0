"""The words of a plan: a difference, a change, what is left alone; values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from broker.topology.counts import Counts
from broker.topology.objects import Identity, Object, masked, shown

if TYPE_CHECKING:
    from broker.topology.replace.record import Replacement

Action = Literal["create", "update", "replace", "delete"]
CHANGED = "(changed)"


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
        hint: how the file could be changed so that no replacement is needed, or "".
        hindrance: why apply never does this as things are, or "".
        counts: what a queue holds that would be replaced or deleted, where it was counted.
    """

    action: Action
    identity: Identity
    before: Object | None = None
    after: Object | None = None
    differences: tuple[Difference, ...] = ()
    reason: str = ""
    hint: str = ""
    hindrance: str = ""
    counts: Counts | None = None

    @property
    def blocked(self) -> bool:
        """Whether apply leaves this to people, unless they allow replacements."""
        return self.action == "replace" or bool(self.hindrance)

    def shown_differences(self) -> tuple[Difference, ...]:
        """Return the differences as anybody may see them: secrets are "(changed)"."""
        secrets = frozenset().union(
            *(each.secrets for each in (self.before, self.after) if each is not None)
        )
        kind = self.identity.kind
        found = []
        for each in self.differences:
            before = masked(kind, each.attribute, each.before, secrets)
            after = masked(kind, each.attribute, each.after, secrets)
            if before == after:
                before = after = CHANGED
            found.append(Difference(each.attribute, before, after))
        return tuple(found)

    def document(self) -> dict[str, Any]:
        """Return the change as JSON, without secrets."""
        document = {
            "action": self.action,
            "kind": self.identity.kind,
            "name": list(self.identity.name)
            if len(self.identity.name) > 1
            else self.identity.name[0],
            "before": _shown(self.before, self.after),
            "after": _shown(self.after, self.before),
            "differences": [
                {"attribute": each.attribute, "before": each.before, "after": each.after}
                for each in self.shown_differences()
            ],
            "reason": self.reason,
            "hint": self.hint,
            "hindrance": self.hindrance,
        }
        if self.counts is not None:
            document["holds"] = self.counts.document()
        return document


@dataclass(frozen=True, slots=True)
class Left:
    """An own object that the file no longer names and that stays, and why."""

    identity: Identity
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes, in the order of doing them, and what is left alone.

    Attributes:
        owner, vhost, version: the topology, the virtual host, RabbitMQ's version.
        changes: what differs.
        unmanaged: objects that the topology does not name; nothing happens to them.
        warnings: what would keep the topology from taking effect.
        left: own objects that the file no longer names, and why they stay.
        others: what other topologies manage, by their name.
        celery: what Celery made for itself, and what for.
        adopted: objects that are as the file says and that apply will record as its own.
        wanted: all that the topology names; what apply records.
        protected: what of it the file protects.
        gone: recorded objects that neither the file nor RabbitMQ has any more.
        interrupted: replacements that were begun and not ended.
        void: topologies whose records tell of nothing that is still there.
        exists: whether the virtual host is there.
    """

    owner: str
    vhost: str
    version: str
    changes: tuple[Change, ...]
    unmanaged: tuple[Identity, ...] = ()
    warnings: tuple[str, ...] = ()
    left: tuple[Left, ...] = ()
    others: Mapping[Identity, str] = field(default_factory=dict)
    celery: Mapping[Identity, str] = field(default_factory=dict)
    adopted: tuple[Identity, ...] = ()
    wanted: frozenset[Identity] = frozenset()
    protected: frozenset[Identity] = frozenset()
    gone: tuple[Identity, ...] = ()
    interrupted: tuple[Replacement, ...] = ()
    void: tuple[str, ...] = ()
    exists: bool = True

    @property
    def same(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.changes or self.interrupted)

    def document(self) -> dict[str, Any]:
        """Return the plan as JSON, without secrets."""
        return {
            "topology": self.owner,
            "vhost": self.vhost,
            "broker": self.version,
            "changes": [change.document() for change in self.changes],
            "same": self.same,
            "left": [{**_named(each.identity), "reason": each.reason} for each in self.left],
            "unmanaged": [_named(each) for each in self.unmanaged],
            "others": [{**_named(each), "topology": of} for each, of in self.others.items()],
            "celery": [{**_named(each), "what": what} for each, what in self.celery.items()],
            "interrupted": [interrupted_document(each) for each in self.interrupted],
            "warnings": list(self.warnings),
        }


def interrupted_document(each: Replacement) -> dict[str, Any]:
    """Return an interrupted replacement as JSON."""
    return {
        **_named(each.identity),
        "step": each.step,
        "back": each.back,
        "can_go_back": each.can_go_back,
    }


def _named(identity: Identity) -> dict[str, Any]:
    return {"kind": identity.kind, "name": list(identity.name)}


def _shown(each: Object | None, other: Object | None) -> dict[str, Any] | None:
    # What is a secret in one state of an object is one in the other.
    secrets = other.secrets if other is not None else frozenset()
    return None if each is None else shown(each, secrets=secrets)
