"""`rabbitry jobs cancel`."""

from __future__ import annotations

import click

from broker.cli import Duration, Session, common_options, note, print_json
from broker.errors import EXIT_DIFFERS, EXIT_DONE, PublishFailed
from producers.cli.options import OUTCOMES


@click.command(
    epilog="""\b
Examples:
  rabbitry jobs cancel 0b7c3c52-6d0f-4f39-9a53-8f6f0c1f6a44
  rabbitry jobs cancel report-2026-10 report-2026-11 --json

\b
A job that runs is told, and ends when its task looks; one that waits is not begun: a call is
answered so, any other becomes a dead letter with the reason `cancelled`. Exit code 0: RabbitMQ has
all of it, which says nothing about whether there are such jobs; 3: some of it; 5: refused;
6: nobody knows.""",
)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option(
    "--timeout",
    type=Duration(),
    default="30s",
    show_default=True,
    help="How long to wait for RabbitMQ's confirms.",
)
@common_options("topology", "url", "json")
def cancel(session: Session, ids: tuple[str, ...], timeout: float) -> int:
    """Tell all workers that nobody wants these jobs any more."""
    import getpass
    import socket

    from broker.connection import address_of
    from producers.cancel import Canceller

    topology = session.load_topology()
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    canceller = Canceller(topology, address_of(topology, session.url), by=by)
    failures: list[PublishFailed] = []
    try:
        canceller.check(ids)
        canceller.connect(timeout_s=timeout)
        receipts = [(id, canceller.cancel(id, timeout_s=timeout)) for id in ids]
        for id, receipt in receipts:
            failure = None
            try:
                receipt.wait()
            except PublishFailed as exc:
                failure = exc
                failures.append(exc)
            outcome = OUTCOMES[type(failure).__name__] if failure else "routed"
            if session.json:
                reason = str(failure) if failure else None
                print_json({"id": id, "outcome": outcome, "reason": reason})
            elif failure is None:
                click.echo(f"cancelled {id}")
            else:
                note(f"{id} is not cancelled: {failure}")
    finally:
        canceller.close()
    if failures and len(failures) < len(ids):
        return EXIT_DIFFERS
    if failures:
        raise failures[0]
    return EXIT_DONE
