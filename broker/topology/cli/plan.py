"""`rabbitry topology plan|apply`: look at changes first, then make them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from broker.cli import Session, common_options, note, print_json
from broker.errors import EXIT_DIFFERS, EXIT_DONE
from broker.topology.cli.group import topology

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.management import Management
    from broker.topology.apply import Outcome
    from broker.topology.model import Topology
    from broker.topology.plan import Change, Plan

_SIGNS = {
    "create": ("+", "green"),
    "update": ("~", "yellow"),
    "replace": ("±", "magenta"),
    "delete": ("-", "red"),
}
_UNMANAGED_SHOWN = 10


@topology.command(epilog="\b\nExamples:\n  rabbitry topology plan\n  rabbitry topology plan --json")
@common_options("topology", "url", "json")
def plan(session: Session) -> int:
    """Show what apply would change. Exits 0 if nothing, 3 if something."""
    with _management(session, file := session.load_topology()) as management:
        found = _plan(file, management)
    if session.json:
        print_json(found.document())
    else:
        _show(found)
    _warn(found.warnings)
    return EXIT_DONE if found.same else EXIT_DIFFERS


@topology.command(
    epilog="\b\nExamples:\n  rabbitry topology apply\n  rabbitry topology apply --yes --json"
)
@common_options("topology", "url", "json")
@click.option("--yes", is_flag=True, help="Do not ask; needed away from a terminal.")
def apply(session: Session, yes: bool) -> int:
    """Change RabbitMQ so that it is as the file says, and verify it.

    Nothing that the file does not name is touched, and nothing that would lose messages is
    done: what RabbitMQ cannot change in place is named and left as it is. Exits 3 where
    something is left.
    """
    from broker.topology.apply import Outcome, apply

    with _management(session, file := session.load_topology()) as management:
        found = _plan(file, management)
        if not session.json:
            _show(found)
        _warn(found.warnings)
        if not any(not change.blocked for change in found.changes):
            outcome = Outcome(not_done=found.changes)
        else:
            _confirm(found, yes=yes)
            quiet = session.json
            outcome = apply(
                found, management, on_done=lambda change: None if quiet else _done(change)
            )
    if session.json:
        print_json(outcome.document())
    # Nothing done and one error to tell: it has the better exit code.
    if outcome.error is not None and not outcome.done:
        raise outcome.error
    _account(outcome)
    return EXIT_DONE if outcome.complete else EXIT_DIFFERS


def _management(session: Session, topology: Topology) -> Management:
    from broker.management import Management

    return Management(session.address(topology))


def _plan(topology: Topology, management: Management) -> Plan:
    from broker.topology.compile import compile_topology
    from broker.topology.observe import observe
    from broker.topology.plan import make_plan

    # The virtual host of the address: one that the URL names wins over the file's.
    desired = compile_topology(topology, vhost=management.address.vhost_name)
    observed = observe(
        management, desired.vhost, requires=topology.broker.requires, named=desired.objects
    )
    return make_plan(desired, observed)


def _confirm(found: Plan, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("this is not a terminal, so apply cannot ask; add --yes")
    click.confirm(f"Apply to virtual host {found.vhost!r}?", abort=True, err=True)


# -- how it looks ---------------------------------------------------------------------


def _show(found: Plan) -> None:
    for change in found.changes:
        sign, colour = _SIGNS[change.action]
        _line(f"{sign} {change.identity}", colour)
        for line in _details(change):
            _line(f"    {line}", None)
    if found.unmanaged:
        shown = ", ".join(str(each) for each in found.unmanaged[:_UNMANAGED_SHOWN])
        more = len(found.unmanaged) - _UNMANAGED_SHOWN
        tail = f" and {more} more" if more > 0 else ""
        note(f"Not in the file, left alone: {shown}{tail}.")
    where = f"virtual host {found.vhost!r} of RabbitMQ {found.version}"
    if found.same:
        note(f"Nothing to do: {where} is as the file says.")
        return
    counts = [
        f"{sum(change.action == action for change in found.changes)} to {verb}"
        for action, verb in (
            ("create", "create"),
            ("update", "change"),
            ("delete", "delete"),
            ("replace", "replace (left alone by this version)"),
        )
        if any(change.action == action for change in found.changes)
    ]
    note(f"Plan for {where}: {', '.join(counts)}.")


def _details(change: Change) -> Iterator[str]:
    from broker.topology.objects import flat

    if change.action == "create" and change.after is not None:
        for name, value in flat(change.after.attributes):
            # False is what nobody asked for; it would only hide the rest.
            if value is not False:
                yield f"{name}: {_value(value)}"
    for each in change.differences:
        yield f"{each.attribute}: {_value(each.before)} → {_value(each.after)}"
    if change.reason:
        yield f"({change.reason})"


def _value(value: Any) -> str:
    from broker.topology.objects import canonical

    if value is None:
        return "(not set)"
    return value if isinstance(value, str) else canonical(value)


def _done(change: Change) -> None:
    verb = {"create": "created", "update": "changed", "delete": "deleted"}[change.action]
    _line(f"{verb} {change.identity}", _SIGNS[change.action][1])


def _account(outcome: Outcome) -> None:
    """Say what is done and what is not, on stderr."""
    for failure in outcome.failed:
        note(f"Failed: {failure.reason}")
    for change in outcome.not_done:
        why = change.reason or "not tried after the failure"
        note(f"Not done: {change.action} {change.identity} ({why})")
    _warn(outcome.warnings)
    left = len(outcome.failed) + len(outcome.not_done)
    if outcome.done or left:
        note(f"{len(outcome.done)} done, {left} not done.")
    if left and outcome.failed:
        note("`rabbitry topology apply` goes on from here when the cause is mended.")


def _warn(warnings: tuple[str, ...]) -> None:
    for text in warnings:
        note(f"Warning: {text}")


def _line(text: str, colour: str | None) -> None:
    import os

    # click leaves colours out of pipes; NO_COLOR (https://no-color.org) is left to programs.
    plain = colour is None or bool(os.environ.get("NO_COLOR"))
    click.echo(text if plain else click.style(text, fg=colour))
