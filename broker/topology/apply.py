"""Does what a plan says, stage by stage, and believes nothing that it has not read back.

RabbitMQ answers 204 to changes that it does not make (the arguments of an exchange, say), so
what a stage wrote is read again and compared. A stage is the changes of one kind; reading back
costs one request a stage, however many objects it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from broker.errors import ApplyRefused, Interrupted, RabbitryError, VirtualHostMissing
from broker.management import Management
from broker.topology.allowed import ADMINISTRATOR, check_allowed
from broker.topology.bulk import Failure, Written, write_all
from broker.topology.changes import Change, Plan
from broker.topology.lock import ApplyLock
from broker.topology.objects import BINDING, POLICY, QUEUE, VHOST, Identity
from broker.topology.observe import observe, read_effective, read_kind
from broker.topology.obsolete import MADE_ONLY, Consent, generated_by, stays_with
from broker.topology.ownership import Record, Records, read_records, write_record
from broker.topology.readback import still_wrong
from broker.topology.replacing import go_on, replace_all
from broker.topology.rivals import expression, not_in_force
from broker.topology.settle import SETTLE_S, settle
from broker.topology.source import Source

__all__ = ["Failure", "Outcome", "apply", "make_changes"]


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
        resumed: what a replacement was gone on with of, that an earlier apply had begun.
    """

    done: tuple[Change, ...] = ()
    failed: tuple[Failure, ...] = ()
    not_done: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()
    error: RabbitryError | None = None
    resumed: tuple[Identity, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether everything is as the topology says."""
        return not (self.failed or self.not_done or self.warnings or self.error)

    def document(self) -> dict[str, Any]:
        """Return the outcome as JSON."""
        return {
            "done": [change.document() for change in self.done],
            "failed": [{**each.change.document(), "failure": each.reason} for each in self.failed],
            "not_done": [change.document() for change in self.not_done],
            "resumed": [{"kind": each.kind, "name": each.name[0]} for each in self.resumed],
            "warnings": list(self.warnings),
            "complete": self.complete,
        }


def apply(
    plan: Plan,
    management: Management,
    *,
    consent: Consent | None = None,
    source: Source | None = None,
    on_done: Callable[[Change], None] = lambda change: None,
    say: Callable[[str], None] = lambda text: None,
    settle_s: float | None = None,
) -> Outcome:
    """Make the changes of a plan, under a lock, and record on RabbitMQ whose they are.

    Stops after the first stage in which something failed: later stages build on it. Nothing
    that would lose messages is ever tried without consent.

    Args:
        plan: what to do.
        management: the management API, with a user who may do it.
        consent: what may be replaced or deleted.
        source: where the objects stand in the file, for errors.
        on_done: told of each change when it is made and read back.
        say: told what takes long.
        settle_s: how long a queue must have held nothing before it is deleted, in seconds;
            None for as long as RabbitMQ's statistics may lag.

    Raises:
        AccessRefused, UnsupportedBroker: the user's rights or RabbitMQ's features do not
            suffice; nothing was written.
        ApplyRefused: another apply is at work, or another topology manages one of the objects;
            nothing was written.
    """
    consent = consent or Consent()
    records = read_records(management, plan.vhost, plan.owner)
    if plan.same and not records.known:
        return Outcome()
    if plan.same and _final(plan, _intent(plan, records), plan.changes) == records.own:
        return Outcome()
    tags = check_allowed(plan, management, replaces=consent.replace, source=source)
    homes = [c for c in plan.changes if c.identity.kind == VHOST and c.action == "create"]
    first = Outcome()
    if homes:
        # The lock lives in the virtual host, which therefore comes before it.
        write_record(management, _intent(plan, records))
        first = make_changes(replace(plan, changes=tuple(homes)), management, on_done=on_done)
        plan = replace(plan, changes=tuple(c for c in plan.changes if c not in homes))
        if not first.complete:
            return replace(first, not_done=first.not_done + plan.changes)
    if not (plan.exists or homes) and ADMINISTRATOR not in tags:
        # Whom RabbitMQ does not show a virtual host must not take it for deleted.
        raise VirtualHostMissing(
            f"user {management.address.user!r} sees no virtual host {plan.vhost!r}: an"
            " administrator can tell whether there is none, and remove what is recorded of it"
        )
    with _locked(management, plan.owner, exists=plan.exists or bool(homes)) as check:
        records = read_records(management, plan.vhost, plan.owner)
        if plan.void:
            there = observe(management, plan.vhost, version=plan.version)
            records = records.living(there.objects, exists=plan.exists)
        _refuse_conflicts(plan, records)
        resumed = go_on(plan, management, consent, say, check, settle_s)
        for each in records.void:
            rest = [one for one in records.others if one.owner == each.owner]
            write_record(management, rest[0] if rest else Record(each.owner, each.vhost))
        intent = _intent(plan, records, made=homes)
        if intent != records.own:
            write_record(management, intent)
        outcome = make_changes(
            plan,
            management,
            consent=consent,
            on_done=on_done,
            say=say,
            check=check,
            imports=ADMINISTRATOR in tags,
            settle_s=settle_s,
        )
        left = [*(each.change for each in outcome.failed), *outcome.not_done]
        final = _final(plan, intent, left)
        if final != intent:
            outcome = _recorded(outcome, final, check, management)
    return replace(outcome, done=first.done + outcome.done, resumed=resumed)


def make_changes(
    plan: Plan,
    management: Management,
    *,
    consent: Consent | None = None,
    on_done: Callable[[Change], None] = lambda change: None,
    say: Callable[[str], None] = lambda text: None,
    check: Callable[[], None] = lambda: None,
    imports: bool = False,
    settle_s: float | None = None,
) -> Outcome:
    """Make the changes of a plan; see `apply`, which does so under the lock.

    Args:
        check: raises where nothing more may be written.
        imports: whether the user may import definitions.
    """
    consent = consent or Consent()
    done: list[Change] = []
    failed: list[Failure] = []
    not_done = [c for c in plan.changes if not _wanted(c, consent)]
    error: RabbitryError | None = None
    refused: dict[Identity, str] | None = None
    pending = [change for change in plan.changes if _wanted(change, consent)]
    for (kind, action), group in groupby(pending, key=_stage):
        stage = list(group)
        if failed or error:
            not_done += stage
            continue
        if action == "delete" and kind in (BINDING, QUEUE) and refused is None:
            try:
                refused = _settled(pending, plan, management, consent, check, say, settle_s)
            except RabbitryError as exc:
                error = exc
                not_done += stage
                continue
        stage, kept = _without(stage, refused or {})
        not_done += kept
        try:
            if action == "replace":
                outcome = replace_all(
                    stage, plan, management, check=check, say=say, settle_s=settle_s
                )
            else:
                outcome = write_all(stage, plan.vhost, management, imports=imports, check=check)
        except KeyboardInterrupt:
            outcome = _interrupted(stage, plan, management)
        failed += outcome.failed
        not_done += outcome.not_tried
        error = outcome.error
        try:
            there = read_kind(management, plan.vhost, kind) if outcome.written else {}
        except RabbitryError as exc:
            error = error or exc
            failed += [Failure(change, f"not read back: {exc}") for change in outcome.written]
            continue
        for change in outcome.written:
            if reason := still_wrong(change, there):
                failed.append(Failure(change, reason))
            else:
                done.append(change)
                on_done(change)
    order = {change.identity: index for index, change in enumerate(plan.changes)}
    not_done.sort(key=lambda change: order[change.identity])
    warnings = () if error else _not_in_force(done, plan.vhost, management)
    return Outcome(tuple(done), tuple(failed), tuple(not_done), tuple(warnings), error)


@contextmanager
def _locked(management: Management, owner: str, *, exists: bool) -> Iterator[Callable[[], None]]:
    """Hold the lock; yield what raises where it is lost."""
    if not exists:
        # Where there is no virtual host, only its records are left to be removed.
        yield lambda: None
        return
    with ApplyLock(management.address, owner=owner, management=management) as lock:
        yield lock.check


def _interrupted(stage: Iterable[Change], plan: Plan, management: Management) -> Written:
    """Find out how far a stage came that the user has stopped."""
    outcome = Written(error=Interrupted("apply was interrupted"))
    for kind, group in groupby(stage, key=lambda change: change.identity.kind):
        there = read_kind(management, plan.vhost, kind)
        for change in group:
            made = not still_wrong(change, there)
            (outcome.written if made else outcome.not_tried).append(change)
    return outcome


def _wanted(change: Change, consent: Consent) -> bool:
    return not change.hindrance and (change.action != "replace" or consent.replace)


def _stage(change: Change) -> tuple[str, str]:
    action = change.action if change.action in ("delete", "replace") else "write"
    return change.identity.kind, action


# -- deleting -------------------------------------------------------------------------


def _settled(
    pending: Iterable[Change],
    plan: Plan,
    management: Management,
    consent: Consent,
    check: Callable[[], None],
    say: Callable[[str], None],
    settle_s: float | None,
) -> dict[Identity, str]:
    """Return what must not be deleted after all, and why."""
    settle_s = SETTLE_S if settle_s is None else settle_s
    queues = [
        change.identity
        for change in pending
        if change.action == "delete"
        and change.identity.kind == QUEUE
        and not consent.deletes_filled(change.identity.name[0], owner=plan.owner)
    ]
    if not queues:
        return {}
    say(f"watching {len(queues)} queues for {settle_s:g} s before they are deleted")
    deleted = {c.identity: c.before for c in pending if c.action == "delete" and c.before}
    return settle(
        queues,
        plan.vhost,
        management,
        check=check,
        settle_s=settle_s,
        with_them=lambda refused: stays_with(
            refused, deleted, read_effective(management, plan.vhost)
        ),
    )


def _without(
    stage: Sequence[Change], refused: dict[Identity, str]
) -> tuple[list[Change], list[Change]]:
    """Part the changes of a stage into those to make, and those that hang on a kept queue."""
    kept = []
    for change in stage:
        reason = refused.get(change.identity, "")
        if change.identity.kind == POLICY and change.action == "update" and change.before:
            # What stays keeps its settings.
            found = expression(change.before.attributes["pattern"])
            end = next((each for each in refused if found and found.search(each.name[0])), None)
            reason = f"{end} stays" if end else ""
        if reason:
            kept.append(replace(change, hindrance=reason))
    names = {change.identity for change in kept}
    return [change for change in stage if change.identity not in names], kept


# -- whose they are -------------------------------------------------------------------


def _refuse_conflicts(plan: Plan, records: Records) -> None:
    for change in plan.changes:
        holder = records.holder(change.identity)
        if holder is not None:
            raise ApplyRefused(
                f"topology {holder!r} manages {change.identity} in virtual host {plan.vhost!r},"
                f" so topology {plan.owner!r} does not {change.action} it; give one of the two"
                " another name; nothing was written"
            )
        if (
            change.action == "delete"
            and change.identity not in records.own.objects
            and not generated_by(plan.owner, change.identity)
        ):
            raise ApplyRefused(
                f"{change.identity} is not topology {plan.owner!r}'s any more: another apply ran"
                " since the plan was made; make a new one"
            )


def _intent(plan: Plan, records: Records, *, made: Iterable[Change] = ()) -> Record:
    """Return the record from before the first write: all that there will be."""
    own = records.own
    created = {c.identity for c in (*plan.changes, *made) if c.action == "create"}
    claimed = {
        each
        for each in plan.wanted
        if (each.kind not in MADE_ONLY or each in created) and records.holder(each) is None
    }
    objects = own.objects | claimed
    protected = (plan.protected & objects) | (own.protected - plan.wanted)
    return replace(own, objects=objects, protected=protected)


def _final(plan: Plan, intent: Record, left: Iterable[Change]) -> Record:
    """Return the record from after the last write: without what is gone."""
    staying = {change.identity for change in left}
    deleted = {c.identity for c in plan.changes if c.action == "delete"} - staying
    objects = intent.objects - deleted - set(plan.gone)
    return replace(intent, objects=objects, protected=intent.protected & objects)


def _recorded(
    outcome: Outcome, record: Record, check: Callable[[], None], management: Management
) -> Outcome:
    try:
        check()
        write_record(management, record)
    except RabbitryError as exc:
        return replace(outcome, error=outcome.error or exc)
    return outcome


# -- reading back ---------------------------------------------------------------------


def _not_in_force(done: list[Change], vhost: str, management: Management) -> list[str]:
    policies = [change.after for change in done if change.after and change.after.covers]
    return [*not_in_force(policies, read_effective(management, vhost))] if policies else []
