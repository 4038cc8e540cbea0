"""A measurement as a table: for a terminal, and, without colour, for a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from rich.console import Console
from rich.table import Table

from benchmarks.method.bars import bars_of
from benchmarks.method.results import Record
from benchmarks.method.rounds import Run, median, ratio

Shown = Callable[[Sequence[Run]], str]


def columns(record: Record) -> list[str]:
    """Return the headings; what no contender has is left out."""
    return [name for name, _ in _columns(record)]


def rows(record: Record) -> list[list[str]]:
    """Return a row of text for each contender that was measured."""
    return [
        [name, *(show(runs) for _, show in _columns(record)[1:])]
        for name, runs in record.runs.items()
    ]


def show(record: Record, console: Console) -> None:
    """Print the table, what is missing, and whether the bars are reached."""
    table = Table(title=record.title, title_justify="left")
    for number, heading in enumerate(columns(record)):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows(record):
        table.add_row(*row)
    console.print(table)
    for name, why in record.missing.items():
        console.print(f"{name}: {why}", highlight=False)
    for bar in bars_of(record.measurement):
        verdict = bar.verdict(bar.measured(record.runs, record.better))
        console.print(f"{bar.name}: {verdict}", highlight=False, soft_wrap=True)
    if record.load:
        console.print(
            f"load of the machine before and after, of {record.machine['cores']} cores:"
            f" {record.load['before']:.1f}, {record.load['after']:.1f}",
            highlight=False,
        )


def figure(value: float | None) -> str:
    """Return a figure with as many digits as it deserves."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _columns(record: Record) -> list[tuple[str, Shown]]:
    """Return each heading with what it shows of a contender's runs."""
    first = record.runs[record.first]
    found: list[tuple[str, Shown]] = [
        ("", lambda runs: ""),
        (f"median, {record.unit}", lambda runs: figure(median([run.value for run in runs]))),
        ("min", lambda runs: figure(min(run.value for run in runs))),
        ("max", lambda runs: figure(max(run.value for run in runs))),
        (f"{record.first} : this", lambda runs: f"{ratio(first, runs):.2f}"),
    ]
    optional: tuple[tuple[str, Callable[[Run], float | None]], ...] = (
        ("p50, ms", lambda run: (run.latencies_ms or {}).get(50)),
        ("p99, ms", lambda run: (run.latencies_ms or {}).get(99)),
        (f"client, µs per {record.each}", lambda run: run.client_us),
        (f"RabbitMQ, µs per {record.each}", lambda run: run.broker_us),
        ("memory, MiB", lambda run: run.resident_mib),
    )
    every = [run for runs in record.runs.values() for run in runs]
    for heading, value in optional:
        if any(value(run) is not None for run in every):
            found.append((heading, partial(_median, value)))
    return found


def _median(value: Callable[[Run], float | None], runs: Sequence[Run]) -> str:
    return figure(median([value(run) for run in runs]))
