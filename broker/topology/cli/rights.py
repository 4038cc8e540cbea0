"""`rabbitry topology verify-rights`: proves what users may do, as the users themselves."""

from __future__ import annotations

import click

from broker.cli import Session, common_options, note, print_json, print_table
from broker.errors import EXIT_DONE, EXIT_FAILED, did_you_mean
from broker.topology.cli.group import topology


@topology.command(
    name="verify-rights",
    epilog="""\b
Examples:
  rabbitry topology verify-rights
  rabbitry topology verify-rights --user web --user worker
  rabbitry topology verify-rights --json | jq 'select(.holds | not)'""",
)
@common_options("topology", "url", "json")
@click.option("--user", "users", multiple=True, metavar="NAME", help="Only this user.")
@click.option("--all", "everything", is_flag=True, help="Show also what is as it should be.")
def verify_rights(session: Session, users: tuple[str, ...], everything: bool) -> int:
    """Log in as each user of the file and prove what it can do and what it cannot.

    Nothing is published, consumed or declared: RabbitMQ checks the rights of a request before
    it finds that the request itself is wrong. A worker must be able to write to the default
    exchange, to reply; that reaches every queue of the virtual host, and is why a worker has a
    user of its own. Exits 1 where something is not as it should be.
    """
    import os

    from broker.topology.verify import verify

    file = session.load_topology()
    for name in users:
        if name not in file.users:
            raise click.UsageError(f"the file has no user {name!r}{did_you_mean(name, file.users)}")
    if not file.users:
        note("The file has no users: there is nothing to verify.")
        return EXIT_DONE
    found = list(verify(file, session.address(file), environ=os.environ, only=frozenset(users)))
    wrong = [each for each in found if not each.holds]
    shown = found if everything or session.json else wrong
    if session.json:
        for each in shown:
            print_json(each.document())
    elif shown:
        rows = [
            (
                each.user,
                "log in" if each.expectation is None else each.expectation,
                "refused" if each.expectation and not each.expectation.allowed else "allowed",
                each.text,
                "yes" if each.holds else "NO",
            )
            for each in shown
        ]
        print_table(("user", "action", "expected", "found", "holds"), rows)
    proved = len({each.user for each in found} - {each.user for each in wrong})
    note(
        f"{len(found) - len(wrong)} of {len(found)} rights are as they should be;"
        f" {proved} of {len({each.user for each in found})} users have no more and no less."
    )
    return EXIT_FAILED if wrong else EXIT_DONE
