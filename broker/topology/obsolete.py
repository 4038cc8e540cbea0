"""Own objects that the file no longer names: which of them go, and which stay; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from broker.topology.cancellations import Cancellations
from broker.topology.changes import Change, Left
from broker.topology.counts import Counts
from broker.topology.objects import (
    BINDING,
    EXCHANGE,
    OPERATOR_POLICY,
    OUTSIDE,
    POLICY,
    QUEUE,
    USER,
    VHOST,
    Desired,
    Identity,
    Object,
    Observed,
    by_identity,
)
from broker.topology.ownership import Records
from broker.topology.policies import Settings, owner_of
from broker.topology.rivals import reaches, type_of

# Kinds that are recorded as own only where rabbitry made them: they are others' home, too.
MADE_ONLY = OUTSIDE | {VHOST}
_STAYS = "the file no longer names it; --prune deletes it"
PROTECTED = "it is protected: `protected: false` in the file, applied, ends that"


@dataclass(frozen=True, slots=True)
class Consent:
    """What people have allowed.

    Attributes:
        prune: delete own objects that the file no longer names.
        replace: replace what cannot change in place.
        nonempty: queues that may be deleted with what they hold.
        user: who is logged in, and so is never deleted.
    """

    prune: bool = False
    replace: bool = False
    nonempty: frozenset[str] = frozenset()
    user: str | None = None

    def deletes_filled(self, queue: str, *, owner: str) -> bool:
        """Say whether a queue may be deleted with what it holds.

        Args:
            queue: its name.
            owner: the topology's. Its cancellations are nobody's loss, and always hold something.
        """
        return queue in self.nonempty or queue == Cancellations(owner).queue


def obsolete_of(desired: Desired, observed: Observed, records: Records) -> dict[Identity, Object]:
    """Return the recorded objects that the file no longer names; generated policies apart."""
    return {
        identity: there
        for identity in records.own.objects
        if identity not in desired.objects
        and identity.kind != VHOST
        and (there := observed.objects.get(identity)) is not None
        and not generated_by(desired.owner, identity)
    }


def judge(
    obsolete: Mapping[Identity, Object],
    observed: Observed,
    records: Records,
    *,
    consent: Consent,
    counts: Mapping[str, Counts],
) -> tuple[list[Left], list[Change]]:
    """Say which own objects stay, and which are to be deleted (some of them hindered)."""
    if not consent.prune:
        return [Left(identity, _STAYS) for identity in obsolete], []
    protected = dict.fromkeys((obsolete.keys() & records.own.protected), PROTECTED)
    # What hangs on something protected is as it is to be, and so is no change.
    kept = stays_with(protected, obsolete, observed.effective)
    left = [Left(identity, kept[identity]) for identity in obsolete if identity in kept]
    hindered = _bound_by_others(obsolete, observed, records)
    for identity in obsolete:
        name = identity.name[0]
        held = counts.get(name) if identity.kind == QUEUE else None
        filled = held is not None and not held.idle
        if filled and not consent.deletes_filled(name, owner=records.own.owner):
            hindered.setdefault(
                identity, f"it holds {held}; --delete-nonempty {name} deletes it all the same"
            )
        if identity.kind == USER and name == consent.user:
            hindered.setdefault(identity, "it is the user that apply is logged in as")
    hindered = stays_with(kept | hindered, obsolete, observed.effective)
    deletions = []
    for identity, there in obsolete.items():
        if identity in kept:
            continue
        deletions.append(
            Change(
                "delete",
                identity,
                before=there,
                reason="the file no longer names it",
                hindrance=hindered.get(identity, ""),
                counts=counts.get(identity.name[0]) if identity.kind == QUEUE else None,
            )
        )
    return left, deletions


def _bound_by_others(
    obsolete: Mapping[Identity, Object], observed: Observed, records: Records
) -> dict[Identity, str]:
    """Return own queues and exchanges that bindings of other topologies would go with."""
    found: dict[Identity, str] = {}
    for record in records.others:
        for binding in record.objects:
            if binding.kind == BINDING and binding in observed.objects:
                for end in ends(binding):
                    if end in obsolete:
                        text = f"topology {record.owner!r} has {binding} there"
                        found.setdefault(end, text)
    return found


def ends(binding: Identity) -> tuple[Identity, Identity]:
    """Return the exchange that a binding comes from, and what it leads to."""
    source, kind, destination, *_ = binding.name
    return Identity(EXCHANGE, (source,)), Identity(kind, (destination,))


def stays_with(
    staying: Mapping[Identity, str],
    deleted: Mapping[Identity, Object],
    effective: Mapping[str, Mapping[str, Any]],
) -> dict[Identity, str]:
    """Return what must stay, with why: what was to be deleted and what stays hangs on it.

    A queue that stays keeps its bindings, the exchanges that these come from, its policies, and
    the exchange that it dead-letters to with where that leads: half a deletion loses messages.

    Args:
        staying: what stays in any case, with why.
        deleted: what would be deleted.
        effective: the policy settings in force on each queue, by its name.
    """
    found = dict(staying)
    while more := {
        identity: reason
        for identity in deleted
        if identity not in found and (reason := _needed_by(identity, found, deleted, effective))
    }:
        found |= more
    return found


def _needed_by(
    identity: Identity,
    staying: Mapping[Identity, str],
    deleted: Mapping[Identity, Object],
    effective: Mapping[str, Mapping[str, Any]],
) -> str:
    for each in staying:
        needs = False
        letters = _letters(each, deleted, effective) if each.kind == QUEUE else None
        if identity.kind == BINDING:
            needs = ends(identity)[1] == each or identity.name[0] == letters
        elif identity.kind in (EXCHANGE, QUEUE) and each.kind == BINDING:
            needs = identity in ends(each)
        elif identity.kind == EXCHANGE:
            needs = identity.name[0] == letters
        elif identity.kind in (POLICY, OPERATOR_POLICY) and each in deleted:
            there = deleted[each]
            needs = each.kind in (EXCHANGE, QUEUE) and reaches(
                deleted[identity], type=_type(there), name=each.name[0]
            )
        if needs:
            return f"{each} stays"
    return ""


def _letters(
    queue: Identity,
    deleted: Mapping[Identity, Object],
    effective: Mapping[str, Mapping[str, Any]],
) -> str | None:
    """Return the exchange that a queue dead-letters to; an argument wins over a policy."""
    arguments = deleted[queue].attributes["arguments"] if queue in deleted else {}
    policies = effective.get(queue.name[0], {})
    found: str | None = arguments.get(
        "x-dead-letter-exchange", policies.get("dead-letter-exchange")
    )
    return found


def keep_settings(desired: Desired, observed: Observed, staying: Iterable[Identity]) -> Desired:
    """Let what stays keep the generated policies that are for it.

    A queue that the file no longer names must not lose its dead-lettering before it goes.
    """
    ours = [
        each for identity, each in observed.objects.items() if generated_by(desired.owner, identity)
    ]
    settings = Settings(desired.owner)
    found = False
    for identity in staying:
        if identity.kind in (EXCHANGE, QUEUE):
            type_ = _type(observed.objects[identity])
            for policy in ours:
                if reaches(policy, type=type_, name=identity.name[0]):
                    definition = policy.attributes["definition"]
                    settings.add(identity.name[0], type=type_, definition=definition)
                    found = True
                    break
    if not found:
        return desired
    for each in desired.objects.values():
        for name in each.covers:
            settings.add(name, type=type_of(each), definition=each.attributes["definition"])
    others = [each for each in desired.objects.values() if not each.covers]
    return replace(desired, objects=by_identity([*others, *settings.policies()]))


def generated_by(owner: str, identity: Identity) -> bool:
    """Say whether an object is a policy that was generated for this topology."""
    return identity.kind == POLICY and owner_of(identity.name[0]) == owner


def _type(each: Object) -> str:
    return "exchange" if each.identity.kind == EXCHANGE else str(each.attributes.get("type", ""))
