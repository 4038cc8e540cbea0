"""Interleaved rounds, medians with their spread, ratios pair by pair within a round."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

RESULTS = Path("benchmarks") / "results.jsonl"
LIBRARIES = ("rabbitry", "celery", "kombu", "amqp", "numpy")


@dataclass(frozen=True, slots=True)
class Bar:
    """How much better than another the first contender has to be.

    Attributes:
        name: the other.
        ratio: the first's figure is at least so many times the other's.
    """

    name: str
    ratio: float


def measure(
    contenders: Mapping[str, Callable[[], float]], *, rounds: int = 5
) -> dict[str, list[float]]:
    """Run every contender once a round, in turn, after one round that does not count.

    Args:
        contenders: each runs its work and returns its figure.
        rounds: how many rounds count.
    """
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            figure = run()
            if number:
                figures[name].append(figure)
    return figures


def report(
    question: str,
    figures: Mapping[str, list[float]],
    *,
    unit: str,
    first: str,
    context: Mapping[str, object],
    bars: Sequence[Bar] = (),
    missing: Mapping[str, str] | None = None,
    libraries: Sequence[str] = (),
) -> None:
    """Print a table and append it to the results.

    Args:
        question: what was measured.
        figures: by contender, one a round.
        unit: of the figures.
        first: the contender that the others are set in proportion to.
        context: what else a reader must know, such as RabbitMQ's version.
        bars: what the first has to reach; each is said to be passed or failed.
        missing: contenders that could not be measured here, and why.
        libraries: further ones whose versions belong to the record.
    """
    table = Table(title=question, title_justify="left")
    for column in ("", f"median ({unit})", "min", "max", f"{first} : this"):
        table.add_column(column, justify="left" if not column else "right")
    ratios = {
        name: float(np.median(np.array(figures[first]) / np.array(values)))
        for name, values in figures.items()
    }
    for name, values in figures.items():
        table.add_row(
            name,
            f"{np.median(values):,.1f}",
            f"{min(values):,.1f}",
            f"{max(values):,.1f}",
            f"{ratios[name]:.2f}",
        )
    for name, why in (missing or {}).items():
        table.add_row(name, why)
    Console().print(table)
    verdicts = {bar.name: _verdict(bar, ratios) for bar in bars}
    for name, verdict in verdicts.items():
        print(f"{verdict}: {name}")
    record = {
        "question": question,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "unit": unit,
        "figures": dict(figures),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in (*LIBRARIES, *libraries)},
        "verdicts": verdicts,
        **context,
    }
    with RESULTS.open("a") as file:
        file.write(json.dumps(record) + "\n")


def _verdict(bar: Bar, ratios: Mapping[str, float]) -> str:
    if bar.name not in ratios:
        return f"NOT MEASURED, at least {bar.ratio:g} times"
    word = "PASS" if ratios[bar.name] >= bar.ratio else "FAIL"
    return f"{word}, {ratios[bar.name]:.2f} times, at least {bar.ratio:g} times"
