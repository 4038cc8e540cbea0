"""`rabbitry schedule`: jobs that recur."""

from __future__ import annotations

import click

from broker.cli import Session, common_options, note, print_json, print_table

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@click.group()
def schedule() -> None:
    """Jobs that recur."""


@schedule.command(
    epilog="""\b
Examples:
  rabbitry schedule run
  rabbitry schedule run --loglevel WARNING
  rabbitry schedule run --health 127.0.0.1:9807""",
)
@click.option(
    "--loglevel",
    type=click.Choice(LEVELS, case_sensitive=False),
    default="INFO",
    show_default=True,
    envvar="RABBITRY_LOGLEVEL",
    show_envvar=True,
    help="What is logged to stderr.",
)
@click.option(
    "--health",
    metavar="HOST:PORT",
    envvar="RABBITRY_HEALTH",
    show_envvar=True,
    help="Answer /livez, /readyz and /metrics here.",
)
@common_options("topology", "url")
def run(session: Session, loglevel: str, health: str | None) -> int:
    """Publish the jobs that recur, until SIGTERM or Ctrl-C.

    Run as many as you like: RabbitMQ lets one of them lead, and another one as soon as that is
    gone. Each tick has the message id NAME@TIME, whoever publishes it.
    """
    import logging

    from consumers.schedule.scheduler import run_scheduler

    logging.basicConfig(
        level=loglevel.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    topology = session.load_topology()
    return run_scheduler(topology, session.address(topology), health=health)


@schedule.command(
    "list",
    epilog="""\b
Examples:
  rabbitry schedule list
  rabbitry schedule list --json""",
)
@common_options("topology", "url", "json")
def list_(session: Session) -> None:
    """List the schedules: when each is due next, what was published last, and who leads."""
    from consumers.schedule.report import leadership, lines

    topology = session.load_topology()
    address = session.address(topology)
    found = leadership(topology, address)
    rows = lines(topology, found)
    if session.json:
        for row in rows:
            print_json({**row.document(), "leader": found.leader, "schedulers": found.schedulers})
        return
    columns = ("schedule", "job", "recurs", "catch up", "last", "outcome", "next")
    print_table(columns, [row.cells() for row in rows])
    note(str(found))
