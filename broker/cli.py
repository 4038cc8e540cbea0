"""What every command of rabbitry shares, and `rabbitry ping`.

Common options, where they come from, and how data is printed: a table on a terminal, plain
columns in a pipe, one JSON object a line with ``--json``.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

if TYPE_CHECKING:
    from rich.console import Console

    from broker.connection import Address
    from broker.topology.model import Topology

DEFAULT_TOPOLOGY = "topology.yaml"
# Between two pictures of a progress bar.
BAR_S = 0.1


@dataclass(slots=True)
class Session:
    """The common options of one run of the command line; later ones win over earlier ones."""

    topology: str | None = None
    overlay: tuple[str, ...] = ()
    url: str | None = None
    json: bool = False
    debug: bool = False

    @property
    def topology_path(self) -> Path:
        """Path of the topology file, whether it exists or not."""
        return Path(self.topology or DEFAULT_TOPOLOGY)

    def load_topology(self) -> Topology:
        """Read the topology file. Raises TopologyError."""
        from broker.topology import Topology

        return Topology.load(self.topology_path, overlay=self.overlay)

    @property
    def address_names_vhost(self) -> bool:
        """Whether the URL that the user gave names a virtual host."""
        from broker.connection import Address

        url = self.url or os.environ.get("RABBITRY_URL")
        return url is not None and Address.parse(url).vhost is not None

    def address(self, topology: Topology | None = None) -> Address:
        """Find RabbitMQ; the virtual host is the topology's unless the URL names one.

        Without a topology the file is read if it is there: its address and virtual host count.
        """
        from broker.connection import address_of, resolve_address

        if topology is None and self.topology_path.exists():
            topology = self.load_topology()
        if topology is None:
            return resolve_address(self.url)
        return address_of(topology, self.url)


def common_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the common options; it receives a `Session` as its first argument.

    Args:
        names: which of ``topology``, ``url``, ``json``; ``overlay`` comes along with
            ``topology``, and ``debug`` always.
    """
    together = [
        part for name in names for part in ((name, "overlay") if name == "topology" else (name,))
    ]
    options = {
        "topology": click.option(
            "--topology",
            metavar="FILE",
            envvar="RABBITRY_TOPOLOGY",
            show_envvar=True,
            help=f"The topology file.  [default: {DEFAULT_TOPOLOGY}]",
        ),
        "overlay": click.option(
            "--overlay",
            metavar="FILE",
            type=click.Path(),
            multiple=True,
            envvar="RABBITRY_OVERLAY",
            show_envvar=True,
            help="A file laid over the topology file; may be given several times.",
        ),
        "url": click.option(
            "--url",
            metavar="URL",
            envvar="RABBITRY_URL",
            show_envvar=True,
            help="Where RabbitMQ is: amqp://user:password@host:port/vhost.",
        ),
        "json": click.option(
            "--json",
            is_flag=True,
            default=None,
            envvar="RABBITRY_JSON",
            show_envvar=True,
            help="Print JSON.",
        ),
        "debug": click.option(
            "--debug",
            is_flag=True,
            default=None,
            envvar="RABBITRY_DEBUG",
            show_envvar=True,
            help="Show tracebacks and the libraries' logs.",
        ),
    }

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @click.pass_context
        @functools.wraps(function)
        def run(context: click.Context, /, *args: Any, **kwargs: Any) -> Any:
            session = context.ensure_object(Session)
            for name in (*together, "debug"):
                value = kwargs.pop(name)
                if value is not None and value != ():
                    setattr(session, name, value)
            return function(session, *args, **kwargs)

        for name in ("debug", *reversed(together)):
            run = options[name](run)
        return run

    return decorate


# -- printing -------------------------------------------------------------------------


def print_json(value: Any) -> None:
    """Print one JSON value on a line of its own."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str))


def note(text: str) -> None:
    """Tell the person something that is not data: goes to stderr."""
    click.echo(text, err=True)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None
) -> None:
    """Print rows on stdout: a table on a terminal, plain aligned columns in a pipe."""
    from rich.table import Table
    from rich.text import Text

    console = stdout_console()
    fancy = console.is_terminal
    table = Table(title=title if fancy else None, title_justify="left", pad_edge=fancy)
    if not fancy:
        table.box = None
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=not fancy)
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    console.print(table)


def stdout_console() -> Console:
    """Return a console on stdout; off a terminal it is wide and without colours."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 10_000
    return Console(width=width, highlight=False, soft_wrap=width is not None)


# -- ping -----------------------------------------------------------------------------


class Duration(click.ParamType[float]):
    """A duration as people write it: 250ms, 30s, 5m, 2h, 3d; a value in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it."""
        from broker.units import parse_duration

        try:
            return parse_duration(str(value)).total_seconds()
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class Bar:
    """How far it is: a bar on stderr, on a terminal only.

    Args:
        text: what is under way.
    """

    def __init__(self, text: str) -> None:
        self._progress: Any = None
        self._drawn_at = 0.0
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            self._progress = Progress(
                TextColumn(text),
                BarColumn(),
                MofNCompleteColumn(),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, done: int, total: int) -> None:
        """Draw how many of how many are done; not more often than eyes can follow."""
        now = time.monotonic()
        if self._progress is not None and now - self._drawn_at >= BAR_S:
            self._drawn_at = now
            self._progress.update(self._task, completed=done, total=total)


@click.command(epilog="\b\nExamples:\n  rabbitry ping\n  rabbitry ping --url amqp://me:pw@host/")
@common_options("topology", "url", "json")
def ping(session: Session) -> None:
    """Connect to RabbitMQ, open a channel, say PONG."""
    from broker.connection import DEFAULT_VHOST, connect, translated
    from broker.errors import VirtualHostMissing

    address = session.address()
    started = time.perf_counter()
    try:
        connection = connect(address)
    except VirtualHostMissing as exc:
        if session.address_names_vhost:
            raise
        # The file's own, which nobody has applied yet: RabbitMQ is there all the same.
        note(str(exc))
        address = address.with_vhost(DEFAULT_VHOST)
        started = time.perf_counter()
        connection = connect(address)
    try:
        connected = time.perf_counter()
        with translated(address):
            connection.default_channel.queue_declare  # noqa: B018  (opens the channel)
        answered = time.perf_counter()
        server = connection.connection.server_properties
        version = server.get("version", "unknown")
        connect_ms, round_trip_ms = (connected - started) * 1e3, (answered - connected) * 1e3
        if session.json:
            print_json(
                {
                    "url": address.redacted,
                    "version": version,
                    "connect_ms": round(connect_ms, 3),
                    "round_trip_ms": round(round_trip_ms, 3),
                }
            )
        else:
            click.echo(
                f"PONG from RabbitMQ {version} at {address.redacted}:"
                f" connected in {connect_ms:.1f} ms, round trip {round_trip_ms:.2f} ms"
            )
    finally:
        connection.release()
