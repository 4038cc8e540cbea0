"""`rabbitry queues`: what waits in the queues, who takes it, and how fast."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from broker.cli import Duration, Session, common_options, note, print_json, print_table
from broker.errors import InvalidInput

if TYPE_CHECKING:
    from rich.table import Table

    from broker.connection import Address
    from consumers.queues.counts import QueueCounts

_COLUMNS = (
    *("QUEUE", "READY", "BY PRIORITY", "UNACKED", "DELAYED", "DEAD-LETTERING", "CONSUMERS"),
    *("IN/S", "OUT/S", "ACKED/S", "MEMORY", "STATE"),
)


@click.group()
def queues() -> None:
    """What waits in the queues, who takes it, and how fast."""


def _which(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option(
        "--all", "all_", is_flag=True, help="Every queue of the virtual host, not the file's."
    )(function)
    return click.argument("names", nargs=-1, metavar="[QUEUE]...")(function)


@queues.command(
    "list",
    epilog="""\b
Examples:
  rabbitry queues list
  rabbitry queues list jobs.high jobs.low --json | jq .ready
  rabbitry queues list --all

\b
The numbers are RabbitMQ's statistics, which are up to nine seconds old.""",
)
@_which
@common_options("topology", "url", "json")
def list_(session: Session, names: tuple[str, ...], all_: bool) -> None:
    """List queues: how much waits, by priority, is in hand, delayed, or being dead-lettered.

    The queues of the topology, or those that are named. A "-" is what RabbitMQ does not tell: by
    priority and delayed, only quorum queues of 4.3 and newer do.
    """
    from broker.management import Management
    from consumers.queues.counts import counts_of

    address, wanted = _wanted(session, names, all_=all_)
    with Management(address) as management:
        found = counts_of(management, wanted)
    if session.json:
        for each in found:
            print_json(each.document())
    else:
        print_table(_COLUMNS, [_row(each) for each in found])
    if not found:
        note(f"No queue in virtual host {address.vhost_name!r}.")


@queues.command(
    epilog="""\b
Examples:
  rabbitry queues watch
  rabbitry queues watch jobs.high --every 5s
  rabbitry queues watch --json --count 10 | jq -c '[.name, .ready]'"""
)
@_which
@click.option(
    "--every",
    type=Duration(),
    default="2s",
    show_default=True,
    help="How long to wait between looks.",
)
@click.option("--count", type=click.IntRange(min=1), help="End after so many looks.")
@common_options("topology", "url", "json")
def watch(
    session: Session, names: tuple[str, ...], all_: bool, every: float, count: int | None
) -> None:
    """Show the table of `queues list` again and again, until Ctrl-C.

    On a terminal the table stays in its place; elsewhere, and with --json, a line a queue is
    printed at each look.
    """
    from broker.management import Management
    from consumers.queues.counts import counts_of

    if every < 0.1:
        raise InvalidInput("--every must be 100ms or more")
    address, wanted = _wanted(session, names, all_=all_)
    live = sys.stdout.isatty() and not session.json
    with Management(address) as management:
        if live:
            _watch_live(lambda: counts_of(management, wanted), every, count, address)
            return
        looks = 0
        while count is None or looks < count:
            if looks:
                time.sleep(every)
            looks += 1
            at = round(time.time(), 3)
            for each in counts_of(management, wanted):
                if session.json:
                    print_json({"at": at, **each.document()})
                else:
                    click.echo(_line(each))
            sys.stdout.flush()


@queues.command(
    epilog="""\b
Examples:
  rabbitry queues peek jobs.high
  rabbitry queues peek jobs.low --count 3 --json | jq .body"""
)
@click.argument("queue")
@click.option(
    "--count",
    type=click.IntRange(1, 10_000),
    default=10,
    show_default=True,
    help="Show at most so many, the next to be served first.",
)
@common_options("topology", "url", "json")
def peek(session: Session, queue: str, count: int) -> None:
    """Show messages of QUEUE without taking them.

    They are delivered here and given back, in order; RabbitMQ does not count that as a failed
    attempt, unless it is older than 4.3. It does mark them as redelivered and serves them before
    all others, also before those of a higher priority that come later. A queue whose retry delays
    what is returned, and not only what failed, would set them aside: it is not looked into.
    """
    from broker.management import Management, version_key
    from consumers.dead_letters.letter import Letter
    from consumers.dead_letters.show import document
    from consumers.queues.browse import Browser

    address = session.address()
    with Management(address) as management:
        found = management.find("queues", address.vhost_name, queue, disable_stats=True)
        version = management.version()
    settings = (found or {}).get("effective_policy_definition") or {}
    arguments = (found or {}).get("arguments") or {}
    kind = arguments.get("x-delayed-retry-type", settings.get("delayed-retry-type"))
    if kind in ("all", "returned"):
        raise InvalidInput(
            f"queue {queue!r} delays every message that is returned (delayed-retry-type {kind}):"
            " looking would set them aside; `rabbitry queues list` counts them"
        )
    if (found or {}).get("type") == "stream" or arguments.get("x-queue-type") == "stream":
        raise InvalidInput(f"queue {queue!r} is a stream; follow it with a consumer instead")
    if (found or {}).get("type") == "quorum" and version_key(version) < version_key("4.3"):
        note(
            f"RabbitMQ {version} counts this look as a failed attempt of each message that is seen:"
            " past the delivery limit it gives them up."
        )
    with Browser(address, queue) as browser:
        waiting = browser.ready()
        letters = [Letter.of(queue, each) for each in browser.deliveries(count)]
    if session.json:
        for letter in letters:
            print_json(
                {
                    "exchange": letter.delivery.exchange,
                    "routing_key": letter.delivery.routing_key,
                    **document(letter),
                }
            )
    else:
        _show(letters)
    note(f"{len(letters):,} of {waiting:,} messages that wait in queue {queue!r}.")


def _wanted(
    session: Session, names: tuple[str, ...], *, all_: bool
) -> tuple[Address, list[str] | None]:
    """Return where RabbitMQ is and which queues are meant; None for all."""
    if all_ and names:
        raise click.UsageError("give the names of queues, or --all")
    if all_:
        return session.address(), None
    if names:
        return session.address(), list(dict.fromkeys(names))
    topology = session.load_topology()
    if not topology.queues:
        raise InvalidInput("the topology has no queues; --all shows those of the virtual host")
    return session.address(topology), list(topology.queues)


def _watch_live(
    ask: Callable[[], list[QueueCounts]], every_s: float, count: int | None, address: Address
) -> None:
    from rich.live import Live

    from broker.cli import stdout_console

    looks = 0
    with Live(console=stdout_console(), auto_refresh=False, screen=False) as live:
        while True:
            found = ask()
            looks += 1
            live.update(_table(found, address), refresh=True)
            if looks == count:
                return
            time.sleep(every_s)


def _table(found: list[QueueCounts], address: Address) -> Table:
    from rich.table import Table

    table = Table(
        title=f"{address.redacted}  {time.strftime('%H:%M:%S')}",
        title_justify="left",
        caption="RabbitMQ's statistics, up to nine seconds old; Ctrl-C ends",
        caption_justify="left",
    )
    for column in _COLUMNS:
        table.add_column(column, overflow="fold", justify=_justified(column))
    for each in found:
        table.add_row(*_row(each), style=None if each.consumers or not each.ready else "yellow")
    return table


def _justified(column: str) -> Any:
    return "left" if column in ("QUEUE", "BY PRIORITY", "STATE") else "right"


def _row(each: QueueCounts) -> tuple[str, ...]:
    return (
        each.name,
        _number(each.ready),
        _priorities(each),
        _number(each.unacked),
        _number(each.delayed),
        _number(each.dead_lettering),
        _number(each.consumers),
        _number(each.in_per_s),
        _number(each.out_per_s),
        _number(each.acked_per_s),
        _size(each.memory_bytes),
        each.state,
    )


def _line(each: QueueCounts) -> str:
    return (
        f"{time.strftime('%H:%M:%S')} {each.name} ready={_number(each.ready)}"
        f" unacked={_number(each.unacked)} delayed={_number(each.delayed)}"
        f" consumers={_number(each.consumers)} in/s={_number(each.in_per_s)}"
        f" out/s={_number(each.out_per_s)}"
    )


def _priorities(each: QueueCounts) -> str:
    """Return ``9: 12  4: 100``, the highest first; what was returned is served before all."""
    if each.priorities is None:
        return "-"
    parts = [f"returned: {each.returned:,}"] if each.returned else []
    ordered = sorted(each.priorities.items(), key=lambda item: -int(item[0]))
    return "  ".join([*parts, *(f"{priority}: {count:,}" for priority, count in ordered)])


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _size(value: int | None) -> str:
    return "-" if value is None else f"{value / 2**20:,.1f} MiB"


def _show(letters: list[Any]) -> None:
    import json

    from consumers.cli.letters import short
    from consumers.dead_letters.show import body_of

    rows = []
    for letter in letters:
        body = body_of(letter.delivery)
        text = json.dumps(body["body"], ensure_ascii=False) if "body" in body else body["body_hex"]
        rows.append(
            (
                letter.id or "?",
                letter.job or "?",
                letter.delivery.properties.get("priority", "-"),
                letter.delivery.headers.get("x-delivery-count", 0),
                letter.delivery.routing_key,
                f"{body['body_bytes']:,}",
                short(text),
            )
        )
    print_table(("ID", "JOB", "PRIORITY", "FAILED", "ROUTING KEY", "BYTES", "BODY"), rows)
