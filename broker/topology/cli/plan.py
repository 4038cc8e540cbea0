"""`rabbitry topology plan|apply`: look at changes first, then make them."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from broker.cli import Session, common_options, note, print_json
from broker.errors import EXIT_DIFFERS, EXIT_DONE, ApplyRefused, Interrupted
from broker.topology.cli.group import topology
from broker.topology.cli.show import account, show_done, show_plan, warn

if TYPE_CHECKING:
    from broker.management import Management
    from broker.topology.apply import Outcome
    from broker.topology.changes import Plan
    from broker.topology.model import Topology


@topology.command(
    epilog="""\b
Examples:
  rabbitry topology plan
  rabbitry topology plan --json | jq '.changes[] | .action + " " + .kind'
  rabbitry topology plan --prune --out changes.plan"""
)
@common_options("topology", "url", "json")
@click.option("--prune", is_flag=True, help="Delete what the file named once and no longer does.")
@click.option("--out", metavar="FILE", type=click.Path(dir_okay=False), help="Keep the plan there.")
def plan(session: Session, prune: bool, out: str | None) -> int:
    """Show what apply would change. Exits 0 if nothing, 3 if something."""
    from broker.topology.features import lacking
    from broker.topology.look import look
    from broker.topology.obsolete import Consent
    from broker.topology.saved import SavedPlan

    with management_of(session, file := session.load_topology()) as management:
        user = management.address.user
        seen = look(file, management, consent=Consent(prune=prune, user=user))
        lacks = lacking(seen.plan.changes, management, source=file.source, only_read=True)
        found = replace(seen.plan, warnings=(*seen.plan.warnings, *lacks))
    if session.json:
        print_json(found.document())
    else:
        show_plan(found)
    warn(found.warnings)
    if out is not None:
        kept = SavedPlan.of(seen, prune=prune, topology=file)
        kept.write(out)
        for name, references in kept.secrets.items():
            note(f"Not kept: {name} gets what {', '.join(references)} holds when it is applied.")
        note(f"Kept in {out}; `rabbitry topology apply {out}` does this and nothing else.")
    return EXIT_DONE if found.same else EXIT_DIFFERS


@topology.command(
    epilog="""\b
Examples:
  rabbitry topology apply
  rabbitry topology apply --yes --json
  rabbitry topology apply changes.plan --yes
  rabbitry topology apply --prune --delete-nonempty jobs.old"""
)
@common_options("topology", "url", "json")
@click.argument("saved", metavar="[PLAN]", required=False, type=click.Path(dir_okay=False))
@click.option("--yes", is_flag=True, help="Do not ask; needed away from a terminal.")
@click.option("--prune", is_flag=True, help="Delete what the file named once and no longer does.")
@click.option(
    "--allow-replace",
    is_flag=True,
    help="Replace queues and exchanges that cannot change in place, without losing a message.",
)
@click.option(
    "--delete-nonempty",
    metavar="NAME",
    multiple=True,
    help="Delete this queue with the messages and consumers it has. May be repeated.",
)
def apply(
    session: Session,
    saved: str | None,
    yes: bool,
    prune: bool,
    allow_replace: bool,
    delete_nonempty: tuple[str, ...],
) -> int:
    """Change RabbitMQ so that it is as the file says, and verify it.

    With PLAN, a file that `plan --out` made, exactly that is done, and nothing where RabbitMQ
    or the topology has changed since. What others made is never touched, and nothing that
    would lose messages is done: what RabbitMQ cannot change in place is named and left as it
    is. Exits 3 where something is left.
    """
    from broker.topology.apply import apply as make
    from broker.topology.look import look
    from broker.topology.obsolete import Consent
    from broker.topology.saved import SavedPlan

    kept = None if saved is None else SavedPlan.read(saved)
    if kept is not None and prune and not kept.prune:
        raise click.UsageError(f"{saved} was made without --prune; make it with --prune")
    with management_of(session, file := session.load_topology()) as management:
        consent = Consent(
            prune=prune or (kept is not None and kept.prune),
            replace=allow_replace,
            nonempty=frozenset(delete_nonempty),
            user=management.address.user,
        )
        if kept is not None:
            # As it was looked at: what may be deleted with its messages is said only now.
            before = Consent(prune=kept.prune, user=management.address.user)
            kept.check(look(file, management, consent=before))
        found = look(file, management, consent=consent).plan
        if not session.json:
            show_plan(found, replace=allow_replace)
        warn(found.warnings)
        question = f"Apply to virtual host {found.vhost!r}?"
        if not found.same and _asked(question, found, yes=yes, replace=allow_replace):
            _check_again(found, file, management, consent)
        outcome = make(
            found,
            management,
            consent=consent,
            source=file.source,
            on_done=lambda change: None if session.json else show_done(change),
            say=note,
        )
    return end(outcome, session, command="apply")


def management_of(session: Session, topology: Topology) -> Management:
    """Return a client of the management API for a topology."""
    from broker.management import Management

    return Management(session.address(topology))


def end(outcome: Outcome, session: Session, *, command: str) -> int:
    """Print what became of a plan and return the exit code."""
    if session.json:
        print_json(outcome.document())
    # Nothing done and one error to tell: it has the better exit code.
    if outcome.error is not None and not outcome.done:
        raise outcome.error
    account(outcome, command=command)
    if isinstance(outcome.error, Interrupted):
        return outcome.error.exit_code
    return EXIT_DONE if outcome.complete else EXIT_DIFFERS


def _asked(question: str, found: Plan, *, yes: bool, replace: bool) -> bool:
    """Ask where somebody must be asked; return whether somebody was."""
    replacing = replace and (
        bool(found.interrupted)
        or any(c.action == "replace" and not c.hindrance for c in found.changes)
    )
    if yes or not (replacing or any(not change.blocked for change in found.changes)):
        return False
    confirm(question)
    return True


def confirm(question: str) -> None:
    """Ask on a terminal; without one it takes --yes."""
    if not sys.stdin.isatty():
        raise click.UsageError("this is not a terminal, so nobody can be asked; add --yes")
    click.confirm(question, abort=True, err=True)


def _check_again(found: Plan, file: Topology, management: Management, consent: object) -> None:
    """Look once more: people take their time to answer."""
    from broker.topology.look import look
    from broker.topology.obsolete import Consent

    assert isinstance(consent, Consent)
    again = look(file, management, consent=consent).plan
    if (again.changes, again.interrupted) != (found.changes, found.interrupted):
        raise ApplyRefused(
            "RabbitMQ changed while this was being looked at; nothing was written, run it again"
        )
