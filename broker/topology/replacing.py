"""Replacements within an apply: those that a plan wants, and those that an earlier apply began."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from broker.errors import ApplyRefused, MissingOnBroker, RabbitryError, did_you_mean
from broker.management import Management
from broker.topology.bulk import Written
from broker.topology.changes import Change, Plan
from broker.topology.lock import ApplyLock
from broker.topology.objects import EXCHANGE, QUEUE, Identity
from broker.topology.observe import read_kind
from broker.topology.obsolete import Consent
from broker.topology.readback import still_wrong

if TYPE_CHECKING:
    from broker.topology.replace import Replacement


def go_on(
    plan: Plan,
    management: Management,
    consent: Consent,
    say: Callable[[str], None],
    check: Callable[[], None],
    settle_s: float | None,
) -> tuple[Identity, ...]:
    """Go on with replacements that were interrupted: nothing else fits their half-done state."""
    from broker.topology.replace import forget, is_void, pending, resume

    begun = pending(management, plan.vhost, plan.owner)
    kinds = (EXCHANGE, QUEUE) if begun and plan.exists else ()
    there = {each for kind in kinds for each in read_kind(management, plan.vhost, kind)}
    resumed = []
    for each in begun:
        if is_void(each, there):
            # It went with its virtual host, or by hand with all its helpers.
            forget(management, each)
            continue
        if not consent.replace:
            raise ApplyRefused(f"{each.interruption}; nothing was written")
        resume(each, management, management.address, say=say, check=check, **_settling(settle_s))
        resumed.append(each.identity)
    return tuple(resumed)


def _settling(settle_s: float | None) -> dict[str, float]:
    return {} if settle_s is None else {"settle_s": settle_s}


def replace_all(
    stage: Iterable[Change],
    plan: Plan,
    management: Management,
    *,
    check: Callable[[], None],
    say: Callable[[str], None],
    settle_s: float | None,
) -> Written:
    """Replace what a plan wants replaced, one after the other."""
    from broker.topology.replace import replace as replace_one

    outcome = Written()
    for change in stage:
        if outcome.error:
            outcome.not_tried.append(change)
            continue
        try:
            check()
            there = read_kind(management, plan.vhost, change.identity.kind)
            if not still_wrong(change, there):
                # A replacement that was interrupted, and gone on with, has done it.
                outcome.written.append(change)
                continue
            replace_one(
                change,
                management,
                management.address,
                owner=plan.owner,
                say=say,
                check=check,
                **_settling(settle_s),
            )
        except RabbitryError as exc:
            outcome.fail(change, exc)
        else:
            outcome.written.append(change)
    return outcome


def begun_of(name: str, owner: str, management: Management) -> list[Replacement]:
    """Return the interrupted replacements of a queue or an exchange.

    Args:
        name: of the queue or exchange.
        owner: the topology that began them.
        management: the management API; its address names the virtual host.

    Raises:
        MissingOnBroker: there is none.
    """
    from broker.topology.replace import pending

    vhost = management.address.vhost_name
    begun = pending(management, vhost, owner)
    found = [each for each in begun if each.name == name]
    if not found:
        known = did_you_mean(name, [each.name for each in begun])
        raise MissingOnBroker(
            f"no replacement of {name!r} was interrupted in virtual host {vhost!r}{known};"
            " `rabbitry topology plan` names those that were"
        )
    return found


def roll_back(
    begun: Iterable[Replacement],
    management: Management,
    *,
    say: Callable[[str], None] = lambda text: None,
    settle_s: float | None = None,
) -> None:
    """Undo interrupted replacements, under the lock.

    Raises:
        ApplyRefused: an apply is at work.
        ProvisioningFailed: one has come too far, or cannot be undone; apply goes on with it.
        Unreachable, AccessRefused: see `broker.errors`.
    """
    from broker.topology.replace import rollback

    found = list(begun)
    owner = found[0].owner if found else ""
    with ApplyLock(management.address, owner=owner, management=management) as lock:
        for each in found:
            rollback(
                each,
                management,
                management.address,
                say=say,
                check=lock.check,
                **_settling(settle_s),
            )
