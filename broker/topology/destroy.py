"""Removes what a topology manages: what its record names, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from broker.errors import ApplyRefused, RabbitryError
from broker.management import Management
from broker.topology.apply import Outcome, apply
from broker.topology.bulk import Failure
from broker.topology.changes import Change, Plan
from broker.topology.counts import Counts, count_queues
from broker.topology.look import interrupted
from broker.topology.objects import (
    PERMISSION,
    TOPIC_PERMISSION,
    VHOST,
    VHOST_LIMIT,
    Desired,
    Identity,
    Observed,
)
from broker.topology.observe import observe
from broker.topology.obsolete import Consent, judge
from broker.topology.ownership import Record, Records, is_rabbitrys, read_records, write_record
from broker.topology.plan import candidates, order_of

# What goes with a virtual host and keeps nobody from deleting it.
_ITS_OWN = frozenset({VHOST, VHOST_LIMIT, PERMISSION, TOPIC_PERMISSION})
_REASON = "destroy removes what the topology manages"


def plan_destroy(
    owner: str, vhost: str, management: Management, *, consent: Consent | None = None
) -> Plan:
    """Return the deletions of all that a topology manages in a virtual host.

    Args:
        owner: the topology's name.
        vhost: the virtual host.
        management: the management API.
        consent: which queues may be deleted with what they hold.

    Raises:
        ApplyRefused: a replacement was interrupted, and messages may be in its helpers.
    """
    consent = replace(consent or Consent(), prune=True)
    records = read_records(management, vhost, owner)
    observed = observe(management, vhost, named=records.own.objects)
    records = records.living(observed.objects, exists=observed.exists)
    for each in interrupted(observed, owner, management):
        raise ApplyRefused(f"{each.interruption}; then destroy. Nothing was removed")
    plan = _plan(observed, records, consent, {})
    if names := candidates(plan):
        plan = _plan(observed, records, consent, count_queues(management, names))
    return plan


def destroy(
    plan: Plan,
    management: Management,
    *,
    consent: Consent | None = None,
    on_done: Callable[[Change], None] = lambda change: None,
    say: Callable[[str], None] = lambda text: None,
    settle_s: float | None = None,
) -> Outcome:
    """Make the deletions of `plan_destroy`; the virtual host goes last.

    It goes only where this topology made it and nothing of anybody else's is in it.

    Raises:
        AccessRefused, ApplyRefused: see `broker.topology.apply.apply`.
    """
    homes = tuple(change for change in plan.changes if change.identity.kind == VHOST)
    inside = replace(plan, changes=tuple(c for c in plan.changes if c not in homes))
    outcome = Outcome()
    if inside.changes or inside.gone:
        outcome = apply(
            inside,
            management,
            consent=replace(consent or Consent(), prune=True),
            on_done=on_done,
            say=say,
            settle_s=settle_s,
        )
    for home in homes:
        outcome = _destroy_home(home, plan, management, outcome, on_done)
    return outcome


def _plan(
    observed: Observed, records: Records, consent: Consent, counts: Mapping[str, Counts]
) -> Plan:
    home = Identity(VHOST, (observed.vhost,))
    own = records.own
    there = {
        identity: observed.objects[identity]
        for identity in own.objects
        if identity in observed.objects and identity != home
    }
    left, deletions = judge(there, observed, records, consent=consent, counts=counts)
    changes = [replace(change, reason=_REASON) for change in deletions]
    nothing = Desired(own.owner, observed.vhost, {})
    changes.sort(key=lambda change: order_of(change, nothing))
    if home in own.objects and home in observed.objects:
        foreign = [each for each in observed.objects if _is_foreign(each, own)]
        hindrance = ""
        if left or any(change.hindrance for change in changes):
            hindrance = "something in it stays"
        elif foreign or records.others:
            first = str(foreign[0]) if foreign else f"topology {records.others[0].owner!r}"
            hindrance = f"it holds what this topology does not manage, such as {first}"
        elif observed.objects[home].attributes.get("protected_from_deletion"):
            hindrance = "it is protected from deletion"
        changes.append(
            Change("delete", home, observed.objects[home], reason=_REASON, hindrance=hindrance)
        )
    return Plan(
        own.owner,
        observed.vhost,
        observed.version,
        tuple(changes),
        left=tuple(left),
        gone=tuple(sorted(own.objects - observed.objects.keys())),
        void=tuple(each.owner for each in records.void),
        exists=observed.exists,
    )


def _is_foreign(identity: Identity, own: Record) -> bool:
    return (
        identity.kind not in _ITS_OWN and identity not in own.objects and not is_rabbitrys(identity)
    )


def _destroy_home(
    home: Change,
    plan: Plan,
    management: Management,
    outcome: Outcome,
    on_done: Callable[[Change], None],
) -> Outcome:
    if home.hindrance or not outcome.complete:
        return replace(outcome, not_done=(*outcome.not_done, home))
    # Others may have moved in since.
    again = plan_destroy(plan.owner, plan.vhost, management)
    last = [change for change in again.changes if change.identity == home.identity]
    if not last or last[0].hindrance or len(again.changes) > 1:
        return replace(outcome, not_done=(*outcome.not_done, *(last or [home])))
    try:
        management.delete("vhosts", plan.vhost)
        write_record(management, Record(plan.owner, plan.vhost))
    except RabbitryError as exc:
        failure = Failure(home, str(exc))
        return replace(outcome, failed=(*outcome.failed, failure), error=exc)
    on_done(home)
    return replace(outcome, done=(*outcome.done, home))
