"""`rabbitry worker list`: who consumes what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from broker.cli import Session, common_options, note, print_json, print_table

if TYPE_CHECKING:
    from consumers.presence import Presence

_COLUMNS = (
    *("WORKER", "HOST", "PID", "QUEUE", "PREFETCH", "UNACKED", "ACTIVE", "SINCE", "VERSION"),
)
_FOREIGN = "(foreign)"


@click.command(
    "list",
    epilog="""\b
Examples:
  rabbitry worker list
  rabbitry worker list --json | jq -r 'select(.active | not) | .worker'

\b
What is unacked is RabbitMQ's statistics, which are up to nine seconds old.""",
)
@common_options("topology", "url", "json")
def list_(session: Session) -> None:
    """List who consumes the queues of the topology's workers, by worker.

    A worker of the file that nobody runs has a line without a host, and a consumer that is none of
    the file's workers counts as foreign.
    """
    from broker.management import Management
    from consumers.presence import presences_in

    topology = session.load_topology()
    queues = dict.fromkeys(queue for each in topology.workers.values() for queue in each.queues)
    with Management(session.address(topology)) as management:
        found = presences_in(management, queues)
    if not topology.workers:
        note("The topology has no workers.")
    rows: list[dict[str, Any]] = []
    for name, spec in topology.workers.items():
        for queue in spec.queues:
            here = [each for each in found if (each.worker, each.queue) == (name, queue)]
            rows += [_row(each, foreign=False) for each in here] or [_nobody(name, queue)]
    known = {(name, queue) for name, spec in topology.workers.items() for queue in spec.queues}
    rows += [_row(each, foreign=True) for each in found if (each.worker, each.queue) not in known]
    if session.json:
        for row in rows:
            print_json(row)
        return
    print_table(_COLUMNS, [_cells(row) for row in rows])


def _row(each: Presence, *, foreign: bool) -> dict[str, Any]:
    return {**each.document(), "running": True, "foreign": foreign}


def _nobody(name: str, queue: str) -> dict[str, Any]:
    from dataclasses import fields

    from consumers.presence import Presence

    empty = dict.fromkeys(field.name for field in fields(Presence))
    said = {"worker": name, "queue": queue, "active": False, "running": False, "foreign": False}
    return {**empty, **said}


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    name = row["worker"] or row["tag"]
    active = ("yes" if row["active"] else row["status"]) if row["running"] else "no worker"
    return (
        f"{_FOREIGN} {name}" if row["foreign"] else name,
        *("-" if row[key] is None else row[key] for key in ("host", "pid", "queue")),
        *("-" if row[key] is None else f"{row[key]:,}" for key in ("prefetch", "unacked")),
        active,
        *("-" if row[key] is None else row[key] for key in ("since", "version")),
    )
