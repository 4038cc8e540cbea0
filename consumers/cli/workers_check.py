"""`rabbitry worker check`: asks RabbitMQ whether a worker consumes its queues."""

from __future__ import annotations

import click

from broker.cli import Session, common_options, print_json


@click.command(
    epilog="""\b
Examples:
  rabbitry worker check high
  rabbitry worker check high --host "$(hostname)" && echo it consumes
  rabbitry worker check high --json | jq .prefetch

\b
A probe that needs no RabbitMQ is /livez and /readyz: see `rabbitry worker run --health`.""",
)
@click.argument("name")
@click.option(
    "--host",
    metavar="HOST",
    envvar="RABBITRY_HOST",
    show_envvar=True,
    help="Count only workers on this machine.",
)
@common_options("topology", "url", "json")
def check(session: Session, name: str, host: str | None) -> None:
    """Ask RabbitMQ whether worker NAME consumes each of its queues.

    Prints its consumers, and ends with 1 where a queue lists none of them. RabbitMQ's word is what
    counts here: a worker that believes that it consumes may be wrong.
    """
    from broker.management import Management
    from consumers.checks import worker_of
    from consumers.errors import NotConsumed
    from consumers.presence import presences_in

    topology = session.load_topology()
    queues = worker_of(topology, name).queues
    with Management(session.address(topology)) as management:
        found = [
            each
            for each in presences_in(management, queues)
            if each.worker == name and (host is None or each.host == host)
        ]
    for each in found:
        if session.json:
            print_json(each.document())
            continue
        click.echo(
            f"{name}@{each.host} (pid {each.pid}) consumes {each.queue}: prefetch {each.prefetch},"
            f" {'active' if each.active else 'waiting'} ({each.status}),"
            f" since {each.since or 'just now'}"
        )
    missing = [queue for queue in queues if queue not in {each.queue for each in found}]
    if missing:
        where = f" on {host}" if host else ""
        raise NotConsumed(
            f"queue {missing[0]!r} lists no consumer of worker {name!r}{where};"
            f" `rabbitry worker run {name}` starts one, `rabbitry worker list` shows who consumes",
            queue=missing[0],
            worker=name,
        )
