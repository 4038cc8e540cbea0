"""How plans and outcomes look on a terminal."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from broker.cli import note

if TYPE_CHECKING:
    from broker.topology.apply import Outcome
    from broker.topology.changes import Change, Plan
    from broker.topology.objects import Identity

SIGNS = {
    "create": ("+", "green"),
    "update": ("~", "yellow"),
    "replace": ("±", "magenta"),
    "delete": ("-", "red"),
}
_SHOWN = 10


def show_plan(found: Plan, *, replace: bool = False, doing: str = "Plan for") -> None:
    """Print the changes on stdout and what is left alone on stderr."""
    new = _new_ladder(found)
    if new:
        kinds = Counter(identity.kind for identity in new)
        told = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
        line(f"+ delay ladder {found.owner}.delays: {told}; --json names each", SIGNS["create"][1])
    for change in found.changes:
        if change.identity in new:
            continue
        sign, colour = SIGNS[change.action]
        line(f"{sign} {change.identity}", colour)
        for text in _details(change):
            line(f"    {text}", None)
    for each in found.interrupted:
        line(f"! {each.interruption}", "magenta")
    for left in found.left:
        note(f"Left: {left.identity} ({left.reason})")
    _list("Not in the file, left alone", found.unmanaged)
    for owner in sorted(set(found.others.values())):
        theirs = [each for each, whose in found.others.items() if whose == owner]
        _list(f"Topology {owner!r} manages", theirs)
    for what in sorted(set(found.celery.values())):
        its = [each for each, purpose in found.celery.items() if purpose == what]
        _list(f"Celery's own, for {what}", its)
    where = f"virtual host {found.vhost!r} of RabbitMQ {found.version}"
    if found.adopted:
        verb = "is" if len(found.adopted) == 1 else "are"
        note(
            f"{len(found.adopted)} of the file's objects {verb} there already; apply records"
            f" that topology {found.owner!r} manages them."
        )
    if found.same:
        note(f"Nothing to do: {where} is as the file says.")
        return
    note(f"{doing} {where}: {', '.join(_counted(found, replace))}.")


def _new_ladder(found: Plan) -> set[Identity]:
    """Return what is to be made of a delay ladder: a hundred lines would hide the others."""
    from broker.delays import due_name
    from broker.topology.ladder import belongs_to
    from broker.topology.objects import EXCHANGE, Identity

    if Identity(EXCHANGE, (due_name(found.owner),)) not in found.wanted:
        return set()
    return {
        change.identity
        for change in found.changes
        if change.action == "create"
        and not change.hindrance
        and belongs_to(found.owner, change.identity)
    }


def _counted(found: Plan, replace: bool) -> Iterator[str]:
    words = {
        "create": "to create",
        "update": "to change",
        "delete": "to delete",
        "replace": "to replace" if replace else "to replace (only with --allow-replace)",
    }
    for action, text in words.items():
        count = sum(c.action == action and not c.hindrance for c in found.changes)
        if count:
            yield f"{count} {text}"
    if found.interrupted:
        yield f"{len(found.interrupted)} interrupted replacement to end"
    hindered = sum(bool(change.hindrance) for change in found.changes)
    if hindered:
        yield f"{hindered} left alone"


def show_done(change: Change) -> None:
    """Print that a change was made."""
    verb = {
        "create": "created",
        "update": "changed",
        "delete": "deleted",
        "replace": "replaced",
    }[change.action]
    line(f"{verb} {change.identity}", SIGNS[change.action][1])


def account(outcome: Outcome, *, command: str) -> None:
    """Say what is done and what is not, on stderr."""
    for failure in outcome.failed:
        note(f"Failed: {failure.reason}")
    for change in outcome.not_done:
        why = change.hindrance or change.reason or "not tried after the failure"
        if change.action == "replace" and not change.hindrance:
            why += "; --allow-replace replaces it without losing a message"
        note(f"Not done: {change.action} {change.identity} ({why})")
    warn(outcome.warnings)
    left = len(outcome.failed) + len(outcome.not_done)
    if outcome.done or left:
        note(f"{len(outcome.done)} done, {left} not done.")
    if outcome.error is not None and not outcome.failed:
        note(f"Stopped: {outcome.error}")
    if left and (outcome.failed or outcome.error):
        note(f"`rabbitry topology {command}` goes on from here when the cause is mended.")


def warn(warnings: Iterable[str]) -> None:
    """Print warnings on stderr."""
    for text in warnings:
        note(f"Warning: {text}")


def line(text: str, colour: str | None) -> None:
    """Print a line on stdout, coloured on a terminal."""
    # click leaves colours out of pipes; NO_COLOR (https://no-color.org) is left to programs.
    plain = colour is None or bool(os.environ.get("NO_COLOR"))
    click.echo(text if plain else click.style(text, fg=colour))


def _details(change: Change) -> Iterator[str]:
    from broker.topology.objects import flat, shown

    if change.action == "create" and change.after is not None:
        for name, value in flat(shown(change.after)):
            # False is what nobody asked for; it would only hide the rest.
            if value is not False:
                yield f"{name}: {text_of(value)}"
    for each in change.shown_differences():
        if each.before == each.after:
            yield f"{each.attribute}: {each.after}"
        else:
            yield f"{each.attribute}: {text_of(each.before)} → {text_of(each.after)}"
    if change.reason:
        yield f"({change.reason})"
    if change.hint:
        yield f"(without a replacement: {change.hint})"
    if change.counts is not None:
        yield f"(it holds {change.counts})"
    if change.hindrance:
        yield f"(left alone: {change.hindrance})"


def text_of(value: Any) -> str:
    """Return a value as people read it."""
    from broker.topology.objects import canonical

    if value is None:
        return "(not set)"
    return value if isinstance(value, str) else canonical(value)


def _list(title: str, identities: Iterable[Identity]) -> None:
    listed = [str(each) for each in identities]
    if listed:
        more = len(listed) - _SHOWN
        tail = f" and {more} more" if more > 0 else ""
        note(f"{title}: {', '.join(listed[:_SHOWN])}{tail}.")
