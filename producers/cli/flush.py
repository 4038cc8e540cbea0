"""`rabbitry jobs flush`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.cli import Bar, Duration, Session, common_options, note, print_json, print_table
from broker.errors import InvalidInput

if TYPE_CHECKING:
    from producers.outbox.flush import Flushed


@click.command(
    epilog="""\b
Examples:
  rabbitry jobs flush --outbox jobs.outbox
  rabbitry jobs flush --outbox jobs.outbox --json
  rabbitry jobs flush --outbox jobs.outbox --dry-run
  rabbitry jobs flush --outbox jobs.outbox --retry
  rabbitry jobs flush --outbox jobs.outbox --drop 6b1f0a3c-…

\b
A job that RabbitMQ refuses keeps its place, and later jobs of its name wait behind it; after
eight refusals it is set aside, and they go on. Exit code 0: nothing is left; 3: some wait;
4: RabbitMQ cannot be reached; 5: some were refused; 6: some were sent and not confirmed.""",
)
@click.option("--outbox", metavar="FILE", required=True, help="The outbox to empty.")
@click.option(
    "--timeout",
    type=Duration(),
    default="30s",
    show_default=True,
    help="Give up when no job has left for so long.",
)
@click.option(
    "--in-order",
    is_flag=True,
    help="Send a job only when the one before of its name is confirmed; slower.",
)
@click.option("--retry", is_flag=True, help="Send what is set aside once more, in its old place.")
@click.option("--drop", metavar="ID", multiple=True, help="Take this job out, unsent.")
@click.option("--dry-run", is_flag=True, help="Send nothing; say what is in it.")
@common_options("topology", "url", "json")
def flush(
    session: Session,
    outbox: str,
    timeout: float,
    in_order: bool,
    retry: bool,
    drop: tuple[str, ...],
    dry_run: bool,
) -> int:
    """Send what waits in an outbox."""
    from producers.outbox.file import OutboxFile
    from producers.outbox.flush import Flushed

    if dry_run and (retry or drop):
        raise InvalidInput("--dry-run changes nothing; leave out --retry and --drop")
    file = OutboxFile(outbox, create=False)
    try:
        for id in drop:
            if not file.drop(id):
                raise InvalidInput(
                    f"the outbox {outbox} has no job {id!r}; --dry-run shows what is refused"
                )
            note(f"dropped {id}")
        if retry:
            note(f"{file.retry():,} jobs are no longer set aside")
        counts = file.counts()
        refused = file.refused()
    finally:
        file.close()
    if dry_run or not counts["waiting"]:
        found = Flushed(waiting=counts["waiting"], aside=counts["aside"], refused=refused)
    else:
        found = _send(
            session, outbox, before=counts["waiting"], timeout_s=timeout, in_order=in_order
        )
    _show(session, outbox, found)
    return found.exit_code


def _send(
    session: Session, outbox: str, *, before: int, timeout_s: float, in_order: bool
) -> Flushed:
    from functools import partial

    from broker.confirmed import ConfirmedChannel
    from producers.outbox.flush import flush as empty
    from producers.outbox.relay import Outbox

    make_channel = partial(ConfirmedChannel, session.address())
    relay = Outbox(outbox, make_channel, in_order=in_order, one_shot=True, create=False)
    try:
        # Says at once what is wrong, rather than when the time is over.
        relay.channel.loop.wait_connected(timeout_s=timeout_s)
        with Bar(Path(outbox).name) as bar:

            def tell(sent: int, waiting: int) -> None:
                bar.show(max(0, sent), sent + waiting)

            return empty(relay, before=before, timeout_s=timeout_s, tell=tell)
    finally:
        relay.close(timeout_s=0.0)
        relay.channel.close(timeout_s=0.0)


def _show(session: Session, outbox: str, found: Flushed) -> None:
    if session.json:
        print_json(
            {
                "outbox": outbox,
                "sent": found.sent,
                "waiting": found.waiting,
                "aside": found.aside,
                "unconfirmed": found.under_way,
                "refused": [
                    {
                        "id": row.id,
                        "name": row.name,
                        "outcome": row.outcome,
                        "reason": row.reason,
                        "refusals": row.refusals,
                        "aside": row.state == "aside",
                    }
                    for row in found.refused
                ],
            }
        )
        return
    text = f"{outbox}: {found.sent:,} sent, {found.waiting:,} waiting, {found.aside:,} set aside"
    if found.under_way:
        text += f", {found.under_way:,} of them sent and not confirmed"
    click.echo(text)
    if found.away and found.waiting:
        note(found.away)
    if found.refused:
        print_table(
            ("ID", "JOB", "ACCEPTED", "REFUSED", "STATE", "REASON"),
            [
                (
                    row.id,
                    row.name,
                    datetime.fromtimestamp(row.accepted_ms / 1000, UTC).isoformat(" ", "seconds"),
                    row.refusals,
                    row.state,
                    f"{row.outcome}: {row.reason}",
                )
                for row in found.refused
            ],
        )
