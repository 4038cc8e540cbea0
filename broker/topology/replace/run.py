"""Does the steps of a replacement, from wherever it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as with_
from typing import NoReturn

from broker.connection import Address
from broker.errors import AccessRefused, ApplyRefused, ProvisioningFailed, RabbitryError
from broker.management import Management
from broker.topology.objects import EXCHANGE, QUEUE
from broker.topology.plan import Change
from broker.topology.replace import exchange, queue, record, steps
from broker.topology.replace.record import Replacement
from broker.topology.replace.site import PATIENCE_S, SETTLE_S, Say, Site

_KINDS = {QUEUE: queue, EXCHANGE: exchange}


def replace(
    change: Change,
    management: Management,
    address: Address,
    *,
    owner: str,
    say: Say,
    settle_s: float = SETTLE_S,
    patience_s: float = PATIENCE_S,
    check: Callable[[], object] = lambda: None,
) -> None:
    """Replace a queue or an exchange while producers and consumers go on.

    One that was begun earlier is gone on with. What cannot be done is undone.

    Args:
        change: with the action "replace", of a queue or an exchange.
        management: the management API; the user needs the tag policymaker, the rights to the
            object and what it is bound to, and all rights on ``rabbitry.replace.`` names.
        address: for AMQP, with the virtual host.
        owner: the topology that wants it.
        say: told what happens, a line at a time.
        settle_s: seconds for which a queue must show no message before it is deleted;
            RabbitMQ's statistics may be 9 s old.
        patience_s: seconds without any progress after which a queue that does not drain gets
            its messages back.
        check: asked before each step; raises ApplyRefused where nothing more may be done.

    Raises:
        ProvisioningFailed: it cannot be done; everything is as before, or the error says so.
        ApplyRefused: what `check` raised, and how far this has come; the next call goes on.
        Unreachable, AccessRefused: see `broker.errors`; the next call goes on.
    """
    with Site(management, address, say, settle_s, patience_s, check) as site:
        begun = [
            each
            for each in record.pending(management, site.vhost)
            if each.identity == change.identity
        ]
        if begun:
            _go_on(site, begun[0])
            return
        it = _KINDS[change.identity.kind].begin(site, change, owner)
        record.write(management, it)
        _run(site, it)


def resume(
    replacement: Replacement,
    management: Management,
    address: Address,
    *,
    say: Say,
    settle_s: float = SETTLE_S,
    patience_s: float = PATIENCE_S,
    check: Callable[[], object] = lambda: None,
) -> None:
    """Go on with a replacement that was interrupted; see `replace`."""
    with Site(management, address, say, settle_s, patience_s, check) as site:
        _go_on(site, replacement)


def rollback(
    replacement: Replacement,
    management: Management,
    address: Address,
    *,
    say: Say,
    settle_s: float = SETTLE_S,
    patience_s: float = PATIENCE_S,
    check: Callable[[], object] = lambda: None,
) -> None:
    """Undo a replacement that was interrupted; see `replace`.

    Raises:
        ProvisioningFailed: it has come too far; resume it.
    """
    with Site(management, address, say, settle_s, patience_s, check) as site:
        if not replacement.can_go_back:
            reason = "it is replaced already, only its messages or bindings are still on their way"
            raise ProvisioningFailed(
                f"{replacement.identity} cannot be rolled back: {reason};"
                " `rabbitry topology apply --allow-replace` goes on with it",
                object=str(replacement.identity),
                reason=reason,
            )
        try:
            _back(site, replacement)
        except _StepFailed as failed:
            raise failed.cause from failed


def _go_on(site: Site, it: Replacement) -> None:
    site.say(f"{it.identity}: going on with a replacement that was interrupted at {it.standing}")
    _run(site, it)


def _run(site: Site, it: Replacement) -> None:
    try:
        _all_steps(site, it)
    except _StepFailed as failed:
        it, cause = failed.it, failed.cause
        if not it.can_go_back or it.back:
            _raise(cause, f"{it.identity}: apply goes on from here when the cause is mended")
        site.say(f"{it.identity}: {cause}; going back")
        try:
            _back(site, it)
        except (RabbitryError, _StepFailed) as exc:
            text = f"{it.identity} is half replaced, and apply goes on from here"
            site.say(f"{text}: going back failed too: {exc}")
            _raise(cause, text)
        _raise(cause, f"{it.identity} is as it was, no message is lost")


def _back(site: Site, it: Replacement) -> None:
    _all_steps(site, with_(it, back=True, after=it.before, step=steps.LAST_WITH_A_WAY_BACK))


def _all_steps(site: Site, it: Replacement) -> None:
    if it.back:
        record.write(site.management, it)
    actions = _KINDS[it.identity.kind].ACTIONS
    names = steps.steps_of(it.identity)
    step: str | None = it.step
    while step is not None:
        title, action = actions[step]
        way = "back, " if it.back else ""
        site.say(f"{it.identity}: {way}step {names.index(step) + 1} of {len(names)}: {title}")
        try:
            site.check()
            it = action(site, it)
        except ApplyRefused as exc:
            raise ApplyRefused(
                f"{exc}: the replacement of {it.identity} stands at {it.standing}, its messages"
                " are safe, and apply --allow-replace goes on from there"
            ) from exc
        except (ProvisioningFailed, AccessRefused) as exc:
            raise _StepFailed(it, exc) from exc
        step = steps.after(it.identity, step)
        if step is not None:
            it = with_(it, step=step)
            record.write(site.management, it)
    record.delete(site.management, it)
    site.say(f"{it.identity} is {'as it was' if it.back else 'replaced'}")


class _StepFailed(Exception):
    """A step that cannot be done, and how far it had come."""

    def __init__(self, it: Replacement, cause: RabbitryError) -> None:
        super().__init__(str(cause))
        self.it = it
        self.cause = cause


def _raise(cause: RabbitryError, text: str) -> NoReturn:
    message = f"{cause} ({text})"
    if isinstance(cause, ProvisioningFailed):
        raise ProvisioningFailed(message, object=cause.object, reason=cause.reason) from cause
    raise AccessRefused(message) from cause
