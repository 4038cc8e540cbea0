"""What has to change so that RabbitMQ is as the topology says, in both directions; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from broker.topology.celery_names import celery_owned
from broker.topology.changes import Action, Change, Difference, Plan
from broker.topology.counts import Counts
from broker.topology.hints import hint_for
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
from broker.topology.obsolete import (
    MADE_ONLY,
    PROTECTED,
    Consent,
    generated_by,
    judge,
    keep_settings,
    obsolete_of,
)
from broker.topology.ownership import Record, Records, is_rabbitrys, protected_of
from broker.topology.passwords import settled
from broker.topology.policies import owner_of
from broker.topology.rivals import expression, hidden, not_in_force

__all__ = [
    "Action",
    "Change",
    "Consent",
    "Difference",
    "Plan",
    "candidates",
    "differences",
    "make_plan",
    "not_in_force",
    "order_of",
]

_ABSENT: Any = object()


def make_plan(
    desired: Desired,
    observed: Observed,
    *,
    records: Records | None = None,
    consent: Consent | None = None,
    counts: Mapping[str, Counts] | None = None,
) -> Plan:
    """Compare what is wanted with what is there.

    Args:
        desired: what the topology wants.
        observed: what RabbitMQ has.
        records: whose objects are whose; unknown where not given.
        consent: what may be deleted.
        counts: what the queues of `candidates` hold, by name; they are not judged without.
    """
    records = records or Records(Record(desired.owner, desired.vhost), known=False)
    consent = consent or Consent()
    counts = counts or {}
    obsolete = obsolete_of(desired, observed, records)
    left, deletions = judge(obsolete, observed, records, consent=consent, counts=counts)
    staying = {each.identity for each in left}
    staying |= {change.identity for change in deletions if change.blocked}
    protected = protected_of(desired.objects.values())
    staying |= _not_replaced(desired, observed, protected, consent)
    desired = keep_settings(desired, observed, staying)
    changes = [
        _with_hindrance(change, records, protected, counts)
        for each in desired.objects.values()
        if (change := _compare(each, observed.objects.get(each.identity))) is not None
    ]
    foreign = [
        each
        for identity, each in observed.objects.items()
        if identity not in desired.objects
        and identity not in obsolete
        and not is_rabbitrys(identity)
        and not generated_by(desired.owner, identity)
    ]
    # Obsolete policies go last, when those that take their place are in force.
    changes += [
        Change("delete", identity, before=each, reason="no object has these settings any more")
        for identity, each in observed.objects.items()
        if generated_by(desired.owner, identity) and identity not in desired.objects
    ]
    changes += deletions
    changes.sort(key=lambda change: order_of(change, desired))
    in_place = [
        each
        for each in desired.objects.values()
        if each.covers and each.identity in observed.objects
    ]
    warnings = [*hidden(desired, foreign)] or [*not_in_force(in_place, observed.effective)]
    others, celery, unmanaged = _sorted_out(foreign, records)
    return Plan(
        desired.owner,
        desired.vhost,
        observed.version,
        tuple(changes),
        unmanaged,
        tuple(warnings),
        left=tuple(sorted(left, key=lambda each: _position(each.identity))),
        others=others,
        celery=celery,
        adopted=_adopted(desired, observed, records),
        wanted=frozenset(desired.objects),
        protected=protected,
        gone=tuple(sorted(records.own.objects - desired.objects.keys() - observed.objects.keys())),
        void=tuple(each.owner for each in records.void),
        exists=observed.exists,
    )


def _not_replaced(
    desired: Desired, observed: Observed, protected: frozenset[Identity], consent: Consent
) -> set[Identity]:
    """Return the queues that are to have another type and keep theirs for now.

    The generated policies of that type must not go before them.
    """
    return {
        identity
        for identity, each in desired.objects.items()
        if identity.kind == QUEUE
        and (there := observed.objects.get(identity)) is not None
        and there.attributes["type"] != each.attributes["type"]
        and not (consent.replace and identity not in protected)
    }


def candidates(plan: Plan) -> list[str]:
    """Return the queues of a plan whose messages decide what may be done with them."""
    return [
        change.identity.name[0]
        for change in plan.changes
        if change.identity.kind == QUEUE and change.action in ("replace", "delete")
    ]


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


# -- what differs ---------------------------------------------------------------------


def _compare(wanted: Object, there: Object | None) -> Change | None:
    if there is None:
        return Change("create", wanted.identity, after=wanted)
    wanted = settled(wanted, there)
    found = differences(wanted, there)
    if not found:
        return None
    if wanted.identity.kind in CHANGEABLE:
        return Change("update", wanted.identity, there, wanted, found)
    attributes = ", ".join(each.attribute for each in found)
    kind = wanted.identity.kind
    reason = (
        f"RabbitMQ cannot change {attributes} of {'an' if kind[0] in 'aeiou' else 'a'} {kind}"
        " that exists"
    )
    hint = hint_for(wanted, found)
    return Change("replace", wanted.identity, there, wanted, found, reason, hint)


def _with_hindrance(
    change: Change,
    records: Records,
    protected: frozenset[Identity],
    counts: Mapping[str, Counts],
) -> Change:
    if change.action == "replace" and change.identity.kind == QUEUE:
        change = replace(change, counts=counts.get(change.identity.name[0]))
    holder = records.holder(change.identity)
    if holder is not None:
        return replace(change, hindrance=f"topology {holder!r} manages it")
    if change.action == "replace" and change.identity in protected:
        return replace(change, hindrance=PROTECTED)
    return change


def _adopted(desired: Desired, observed: Observed, records: Records) -> tuple[Identity, ...]:
    if not records.known:
        return ()
    return tuple(
        identity
        for identity in desired.objects
        if identity in observed.objects
        and identity not in records.own.objects
        and identity.kind not in MADE_ONLY
        and records.holder(identity) is None
    )


def _sorted_out(
    foreign: Iterable[Object], records: Records
) -> tuple[dict[Identity, str], dict[Identity, str], tuple[Identity, ...]]:
    others: dict[Identity, str] = {}
    celery: dict[Identity, str] = {}
    unmanaged: list[Identity] = []
    for identity in sorted((each.identity for each in foreign), key=_position):
        holder = records.holder(identity)
        if holder is None and identity.kind == POLICY:
            holder = owner_of(identity.name[0])
        if holder is not None:
            others[identity] = holder
        elif what := celery_owned(identity):
            celery[identity] = what
        else:
            unmanaged.append(identity)
    return others, celery, tuple(unmanaged)


def _equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    # == first, as it is fast; it also holds 1, 1.0 and True equal, which RabbitMQ does not.
    return one is not _ABSENT and bool(one == other) and canonical(one) == canonical(other)


# -- the order ------------------------------------------------------------------------


def _position(identity: Identity) -> tuple[int, tuple[str, ...]]:
    return CREATION_ORDER.index(identity.kind), identity.name


def order_of(change: Change, desired: Desired) -> tuple[int, int, int, tuple[str, ...]]:
    """Return where a change stands among the others: makings, deletions, policies let go."""
    kind, name = _position(change.identity)
    if change.action == "delete":
        # The reverse of the order of creation; generated policies when nothing needs them.
        return (2 if generated_by(desired.owner, change.identity) else 1), -kind, 0, name
    rank = {"create": 0, "replace": 2}.get(change.action, 1)
    if change.action == "update" and change.identity.kind == POLICY:
        if _only_lets_go(change, desired):
            return 2, -kind, 0, name
        # A policy lets go of a queue only when the one that takes it over is in force.
        rank = 1 + _lets_go(change, desired)
    return 0, kind, rank, name


def _lets_go(change: Change, desired: Desired) -> bool:
    assert change.before is not None
    assert change.after is not None
    found = expression(change.before.attributes["pattern"])
    return found is not None and any(
        each.identity.kind in (EXCHANGE, QUEUE)
        and each.identity.name[0] not in change.after.covers
        and found.search(each.identity.name[0])
        for each in desired.objects.values()
    )


def _only_lets_go(change: Change, desired: Desired) -> bool:
    """Say whether an update does no more than to let go of what the file no longer names."""
    assert change.before is not None
    assert change.after is not None
    found = expression(change.before.attributes["pattern"])
    return (
        bool(change.after.covers)
        and found is not None
        and [each.attribute for each in change.differences] == ["pattern"]
        and all(found.search(name) for name in change.after.covers)
        and not _lets_go(change, desired)
    )
