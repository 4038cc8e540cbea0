"""The whole of rabbitry on real data, by one command: `python examples/demo.py`.

Starts a private RabbitMQ (or takes the one that RABBITRY_URL names), applies the topology, runs
one daemon for each band, queues smoothing jobs of low priority and calls jobs of high priority
while they run. Prints what became of them, writes a picture and a report, and ends everything
that it started.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo_services import (
    Daemon,
    DemoError,
    Interruption,
    daemons,
    drain,
    private_rabbitmq,
    rabbitry,
)

from broker.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, RabbitryError

if TYPE_CHECKING:
    from demo_load import Outcome, Series
    from rich.console import Console

    from broker.connection import Address
    from broker.topology import Topology

ROOT = Path(__file__).resolve().parents[1]
# What runs them: each band's daemon, and the queue that it consumes.
DAEMONS = {"high": "jobs.high", "normal": "jobs.normal", "low": "jobs.low"}


def main() -> int:
    """Run the demo; returns the exit code."""
    interruption = Interruption()
    options = _options()
    try:
        return _run(options, interruption)
    except KeyboardInterrupt:
        print("Interrupted: everything that the demo started has been ended.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except RabbitryError as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return exc.exit_code
    except OSError as exc:
        print(f"Error: {exc.filename or 'the demo'}: {exc.strerror or exc}", file=sys.stderr)
        return EXIT_FAILED


def _options() -> argparse.Namespace:
    def count(text: str) -> int:
        number = int(text)
        if not 2 <= number <= 100_000:
            raise argparse.ArgumentTypeError(f"from 2 to 100000, not {number}")
        return number

    parser = argparse.ArgumentParser(
        description="Run rabbitry end to end on real data.",
        epilog="RABBITRY_URL names a RabbitMQ to use; without it a private one is started.",
    )
    parser.add_argument(
        "--jobs", type=count, default=600, help="smoothing jobs to queue (default: 600)"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "demo", help="folder of the report (default: demo)"
    )
    return parser.parse_args()


def _run(options: argparse.Namespace, interruption: Interruption) -> int:
    from rich.console import Console

    from broker.topology import Topology

    if importlib.util.find_spec("matplotlib") is None:
        raise DemoError("the demo draws with matplotlib: `pip install 'rabbitry[demo]'` first")
    console = Console(stderr=True, highlight=False)
    started = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    path = ROOT / "topology.yaml"
    topology = Topology.load(path)
    with ExitStack() as stack:
        address, environment, ends = _rabbitmq(stack, topology, console, interruption)
        with _step(console, f"applied {path.name} to virtual host {address.vhost_name!r}"):
            rabbitry(
                *("topology", "apply", "--yes", "--topology", str(path)),
                environment=environment,
                interruption=interruption,
            )
        with _step(console, f"one daemon for each band consumes: {', '.join(DAEMONS)}"):
            running = stack.enter_context(
                daemons(
                    DAEMONS,
                    topology=path,
                    address=address,
                    logs=options.out,
                    environment=environment,
                    interruption=interruption,
                )
            )
        began = time.monotonic()
        left = drain(address, DAEMONS.values(), interruption)
        if left:
            _say(console, f"took {left:,} messages of an earlier run out of the way", began)
        with _step(console, "every job ended"):
            series, queued, outcomes = _load(
                options.jobs, topology, address, running, console, interruption
            )
        version = _version(address)
        ending = time.monotonic()
    _say(console, f"ended the daemons{' and the private RabbitMQ' if ends else ''}", ending)
    interruption.check()
    rabbitmq = {"version": version, "url": address.redacted}
    return _report(options.out, series, queued, outcomes, rabbitmq, started, console, interruption)


def _rabbitmq(
    stack: ExitStack, topology: Topology, console: Console, interruption: Interruption
) -> tuple[Address, dict[str, str], bool]:
    """Return where RabbitMQ is, the environment of our commands, and whether we shall end it."""
    from broker.connection import resolve_address

    environment = dict(os.environ)
    # The reference topology, whatever the surroundings prefer.
    environment.pop("RABBITRY_TOPOLOGY", None)
    environment.pop("RABBITRY_JSON", None)
    given = environment.get("RABBITRY_URL")
    began = time.monotonic()
    ends = False
    if given:
        how = "given by RABBITRY_URL"
    else:
        environment.pop("RABBITRY_MANAGEMENT_URL", None)
        given, before = stack.enter_context(private_rabbitmq(environment, interruption))
        ends = not before
        how = "private, started for the demo" if ends else "private, running before: it stays"
    address = resolve_address(given, vhost=topology.vhost.name, environ=environment)
    environment["RABBITRY_URL"] = address.url
    _say(console, f"RabbitMQ at {address.host}:{address.port} ({how})", began)
    return address, environment, ends


def _load(
    jobs: int,
    topology: Topology,
    address: Address,
    running: list[Daemon],
    console: Console,
    interruption: Interruption,
) -> tuple[list[Series], dict[str, int], list[Outcome]]:
    from demo_load import checked, load_series, run

    from producers.caller import Caller

    def look() -> None:
        interruption.check()
        for daemon in running:
            daemon.check()

    series = load_series(ROOT / "examples" / "data")
    with Caller(topology, address.url) as caller, _progress(console, jobs) as progress:
        caller.connect()
        queued, outcomes = run(caller, series, jobs=jobs, progress=progress, look=look)
    return series, queued, checked(outcomes, interruption.check)


def _version(address: Address) -> str:
    from broker.connection import connect

    connection = connect(address)
    try:
        return str(connection.connection.server_properties.get("version", "unknown"))
    finally:
        connection.release()


def _report(
    out: Path,
    series: list[Series],
    queued: Mapping[str, int],
    outcomes: list[Outcome],
    rabbitmq: Mapping[str, str],
    started: float,
    console: Console,
    interruption: Interruption,
) -> int:
    from demo_report import COLUMNS, bands_of, figures, findings_of, rows

    from broker.cli import print_table

    bands, findings = bands_of(outcomes, queued), findings_of(outcomes, series)
    picture = out / "report.png"
    with _step(console, f"drew {_shown(picture)}"):
        from demo_picture import draw

        draw(picture, bands, findings, rabbitmq=rabbitmq)
    interruption.check()
    found = figures(bands, findings, rabbitmq=rabbitmq, seconds=time.monotonic() - started)
    report = out / "report.json"
    report.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")
    print_table(COLUMNS, rows(bands), title="Jobs by band")
    for finding in findings:
        print(finding.sentence + ".")
    print(
        f"{found['seconds']:.1f} s; the picture is {_shown(picture)}, the figures {_shown(report)}."
    )
    unhappy = [outcome for outcome in outcomes if outcome.fate != "done"]
    if unhappy or not found["closed"] or len(findings) != len(series):
        first = unhappy[0].error if unhappy else "a job was queued and never heard of"
        print(
            f"Error: {len(unhappy)} of {len(outcomes)} jobs were not done: {first}", file=sys.stderr
        )
        return EXIT_FAILED
    return EXIT_DONE


def _shown(path: Path) -> str:
    return os.path.relpath(path)


# -- telling how far it is ------------------------------------------------------------


def _say(console: Console, text: str, began: float) -> None:
    seconds = f"{time.monotonic() - began:5.1f} s"
    if console.is_terminal:
        console.print(f"[green]✓[/green] [dim]{seconds}[/dim]  {text}", soft_wrap=True)
    else:
        print(f"{seconds}  {text}", file=sys.stderr)


@contextmanager
def _step(console: Console, text: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    _say(console, text, began)


@contextmanager
def _progress(console: Console, jobs: int) -> Iterator[Any]:
    """Show bars on a terminal, else a line at every quarter of the smoothing jobs."""
    if not console.is_terminal:
        said = 0

        def tell(queued: Mapping[str, int], finished: Mapping[str, int]) -> None:
            nonlocal said
            quarter = 4 * finished["low"] // jobs
            if quarter > said:
                said = quarter
                counts = ", ".join(f"{name} {finished[name]}/{queued[name]}" for name in queued)
                print(f"         jobs ended: {counts}", file=sys.stderr)

        yield tell
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("  {task.description:<7}"), BarColumn(40), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def update(queued: Mapping[str, int], finished: Mapping[str, int]) -> None:
            for name in queued:
                if name not in tasks:
                    tasks[name] = bars.add_task(name)
                bars.update(tasks[name], total=queued[name] or None, completed=finished[name])

        yield update


if __name__ == "__main__":
    sys.exit(main())
