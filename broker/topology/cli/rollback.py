"""`rabbitry topology rollback`: the way back out of an interrupted replacement."""

from __future__ import annotations

import click

from broker.cli import Session, common_options, note, print_json
from broker.errors import EXIT_DONE
from broker.topology.cli.group import topology
from broker.topology.cli.plan import confirm, management_of


@topology.command(
    epilog="""\b
Examples:
  rabbitry topology plan
  rabbitry topology rollback jobs.normal
  rabbitry topology rollback jobs.normal --yes --json"""
)
@common_options("topology", "url", "json")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask; needed away from a terminal.")
def rollback(session: Session, name: str, yes: bool) -> int:
    """Undo an interrupted replacement of the queue or exchange NAME.

    It is then as it was, with its bindings and its messages. `plan` and `drift` name what was
    interrupted; what is replaced already, and only lacks some messages or bindings, can but be
    gone on with, by `apply --allow-replace`.
    """
    from broker.topology.replacing import begun_of, roll_back

    with management_of(session, file := session.load_topology()) as management:
        found = begun_of(name, file.name, management)
        if not yes:
            for each in found:
                note(f"The replacement of {each.identity} stands at {each.standing}.")
            confirm(f"Roll back in virtual host {management.address.vhost_name!r}?")
        roll_back(found, management, say=note)
    if session.json:
        print_json({"rolled_back": [{"kind": i.identity.kind, "name": i.name} for i in found]})
    return EXIT_DONE
