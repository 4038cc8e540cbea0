"""`rabbitry broker`: a private RabbitMQ for development."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from broker.cli import Session, common_options, note, print_json
from broker.errors import EXIT_DONE, EXIT_FAILED
from broker.local.state import NEWEST, SERIES, Series
from broker.local.way import Say

WAYS = ("engine", "path", "debian")


@click.group(
    epilog="\b\nExamples:\n  rabbitry broker up\n  rabbitry broker status\n  rabbitry broker down"
)
def broker() -> None:
    """A private RabbitMQ for development; never touches one that is already there.

    It lives in RABBITRY_HOME, by default the user's cache folder.
    """


@broker.command(
    epilog="""\b
Examples:
  rabbitry broker up
  rabbitry broker up --way debian
  rabbitry broker up --series 4.0
  export RABBITRY_URL=$(rabbitry broker up)""",
)
@click.option(
    "--way",
    type=click.Choice(WAYS),
    envvar="RABBITRY_WAY",
    show_envvar=True,
    help="How to run it.  [default: the first that this machine offers]",
)
@click.option(
    "--series",
    type=click.Choice(SERIES),
    help="Which RabbitMQ; each has data of its own.  [default: that of the last time, else the"
    " newest]",
)
@common_options("json")
def up(session: Session, way: str | None, series: Series | None) -> None:
    """Start it where it does not run; print its URL.

    By a container engine that answers, else the rabbitmq-server on the PATH (4.0 or later), else
    RabbitMQ 4.3 from Debian's packages (4.0 where that is asked for), which root on Debian or
    Ubuntu fetches once.
    """
    from broker import local

    with _progress() as say:
        state = local.up(way=way, series=series, say=say)
    if session.json:
        _print_status(state)
    else:
        click.echo(state.url)


@broker.command(epilog="\b\nExamples:\n  rabbitry broker down\n  rabbitry broker down --purge")
@click.option(
    "--purge", is_flag=True, help="Remove its data (every queue and message), settings and log too."
)
@common_options()
def down(session: Session, purge: bool) -> None:
    """End what `up` started. A RabbitMQ that was fetched stays for the next time."""
    from broker import local

    with _progress() as say:
        existed = local.down(purge=purge, say=say)
    if not existed:
        note("No private RabbitMQ was running.")
    else:
        note("The private RabbitMQ is removed." if purge else "The private RabbitMQ is stopped.")


@broker.command(epilog="\b\nExamples:\n  rabbitry broker status\n  rabbitry broker status --json")
@common_options("json")
def status(session: Session) -> int:
    """Say whether it runs, where, and which version. Exits 1 if it does not run."""
    from broker import local

    state = local.status()
    if state is None:
        note("No private RabbitMQ is running; `rabbitry broker up` starts one.")
        return EXIT_FAILED
    if session.json:
        _print_status(state)
        return EXIT_DONE
    click.echo(f"RabbitMQ {state.version} ({state.way})")
    click.echo(f"url:        {state.url}")
    click.echo(f"management: {state.management_url} (user {state.user}, {state.password})")
    for node in state.nodes:
        where = node.container or (f"process {node.process.pid}" if node.process else "")
        click.echo(f"node:       {node.name} ({where})")
    return EXIT_DONE


@broker.command(
    epilog="""\b
Examples:
  rabbitry broker logs
  rabbitry broker logs -n 500 | less
  rabbitry broker logs --follow""",
)
@click.option("-n", "--lines", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Go on printing what is added, until it ends.")
@common_options()
def logs(session: Session, lines: int, follow: bool) -> int:
    """Print the end of its log, also after it has ended."""
    from broker import local

    if not follow:
        click.echo(local.logs(lines=lines))
        return EXIT_DONE
    return subprocess.run(local.follow_command(lines=lines), stdin=subprocess.DEVNULL).returncode


@broker.command(
    epilog="\b\nExamples:\n  rabbitry broker fetch\n  rabbitry broker fetch --series 4.0"
)
@click.option(
    "--series",
    type=click.Choice(SERIES),
    default=NEWEST,
    show_default=True,
    help="Which RabbitMQ.",
)
@common_options()
def fetch(session: Session, series: Series) -> None:
    """Fetch RabbitMQ from Debian's packages without starting it; print its folder.

    What `up` does by itself where it takes this way; of use when an image is made of it.
    """
    from broker import local

    with _progress() as say:
        click.echo(str(local.fetch_root(series=series, say=say)))


def _print_status(state: object) -> None:
    from broker.local.state import State

    assert isinstance(state, State)
    print_json(
        {
            "url": state.url,
            "management_url": state.management_url,
            "version": state.version,
            "way": state.way,
            "nodes": [node.describe() for node in state.nodes],
        }
    )


@contextmanager
def _progress() -> Iterator[Say]:
    """Show sentences and, on a terminal, a bar for long steps; all on stderr."""
    if not sys.stderr.isatty():

        def plain(text: str, fraction: float | None = None, /) -> None:
            if fraction is None:
                note(text)

        yield plain
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.percentage:>3.0f}%"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("", total=1.0, visible=False)

        def fancy(text: str, fraction: float | None = None, /) -> None:
            if fraction is None:
                bar.console.print(text, highlight=False, markup=False)
            else:
                bar.update(task, completed=fraction, description=text[:60], visible=True)

        yield fancy
        bar.update(task, visible=False)
