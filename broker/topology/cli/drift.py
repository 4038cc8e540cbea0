"""`rabbitry topology drift|destroy`: what changed behind the file's back; the end of it all."""

from __future__ import annotations

import click

from broker.cli import Session, common_options, note, print_json
from broker.errors import EXIT_DIFFERS, EXIT_DONE
from broker.topology.cli.group import topology
from broker.topology.cli.plan import confirm, end, management_of
from broker.topology.cli.show import line, show_done, show_plan, text_of, warn

_COLOURS = {"changed": "yellow", "deleted": "red", "missing": "red", "added": "green"}


@topology.command(
    epilog="\b\nExamples:\n  rabbitry topology drift\n  rabbitry topology drift --json | jq .drift"
)
@common_options("topology", "url", "json")
def drift(session: Session) -> int:
    """Show what changed on the broker behind the file's back. Exits 3 if something did.

    What others added is shown where it alters what the file describes: a policy that hides
    one of the file's or applies to its queues, a binding to them.
    """
    from broker.topology.changes import interrupted_document
    from broker.topology.drift import find_drift
    from broker.topology.look import look

    with management_of(session, file := session.load_topology()) as management:
        seen = look(file, management)
    found, interrupted = find_drift(seen), seen.plan.interrupted
    if session.json:
        print_json(
            {
                "topology": seen.plan.owner,
                "vhost": seen.plan.vhost,
                "drift": [each.document() for each in found],
                "interrupted": [interrupted_document(each) for each in interrupted],
                "same": not (found or interrupted),
            }
        )
    else:
        for each in found:
            line(str(each), _COLOURS[each.what])
            for item in each.differences:
                here, there = text_of(item.after), text_of(item.before)
                shown = here if here == there else f"{there} on the broker, {here} in the file"
                line(f"    {item.attribute}: {shown}", None)
        for half in interrupted:
            line(half.interruption, "magenta")
    warn(seen.plan.warnings)
    where = f"virtual host {seen.plan.vhost!r} of RabbitMQ {seen.plan.version}"
    if interrupted and not found:
        return EXIT_DIFFERS
    if not found:
        note(f"No drift: {where} is as the file says.")
        return EXIT_DONE
    note(f"{len(found)} differ in {where}; `rabbitry topology plan` shows what apply would do.")
    return EXIT_DIFFERS


@topology.command(
    epilog="""\b
Examples:
  rabbitry topology destroy
  rabbitry topology destroy --yes --delete-nonempty jobs.high"""
)
@common_options("topology", "url", "json")
@click.option("--yes", is_flag=True, help="Do not ask; needed away from a terminal.")
@click.option(
    "--delete-nonempty",
    metavar="NAME",
    multiple=True,
    help="Delete this queue with the messages and consumers it has. May be repeated.",
)
def destroy(session: Session, yes: bool, delete_nonempty: tuple[str, ...]) -> int:
    """Remove what the topology manages, in reverse order.

    That is what apply has recorded, whether the file still names it or not; nothing else is
    touched. A queue that holds messages or has consumers stays, and what is protected. The
    virtual host goes where apply made it and nothing of others is in it. A replacement that was
    interrupted has to be ended first.
    """
    from broker.topology.destroy import destroy as remove
    from broker.topology.destroy import plan_destroy
    from broker.topology.obsolete import Consent

    with management_of(session, file := session.load_topology()) as management:
        vhost, user = management.address.vhost_name, management.address.user
        consent = Consent(prune=True, nonempty=frozenset(delete_nonempty), user=user)
        found = plan_destroy(file.name, vhost, management, consent=consent)
        if found.same and not found.gone:
            note(f"Nothing to do: topology {file.name!r} manages nothing in {vhost!r}.")
            if session.json:
                print_json({"done": [], "failed": [], "not_done": [], "complete": True})
            return EXIT_DONE
        if found.same:
            note(
                f"Of what topology {file.name!r} managed in {vhost!r} nothing is left but the"
                f" record of {len(found.gone)} objects, which is removed."
            )
        elif not session.json:
            show_plan(found, doing="To remove from")
        if not yes and any(not change.blocked for change in found.changes):
            confirm(f"Remove all this from virtual host {vhost!r}?")
        outcome = remove(
            found,
            management,
            consent=consent,
            on_done=lambda change: None if session.json else show_done(change),
            say=note,
        )
    return end(outcome, session, command="destroy")
