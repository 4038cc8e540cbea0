"""The guard: has a ratio fallen by more than a quarter?

The small version is compared with a small version of before, which is kept with the source, since
little work gives other ratios than much. The measure is the weaker of that ratio and of the bar.
What was not measured, for want of time or of a compiler, is said and is no failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from benchmarks.method.bars import BARS, SLACK, Bar
from benchmarks.method.results import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a bar's ratio is now, and what it was; None where it was not measured."""

    bar: Bar
    now: float | None
    before: float | None

    @property
    def fallen(self) -> bool:
        """Whether it is worse than it may be."""
        return self.now is not None and self.bar.fallen(self.now, self.before)

    @property
    def word(self) -> str:
        """The verdict."""
        if self.now is None:
            return "NOT MEASURED"
        return "FALLEN" if self.fallen else "HOLDS"


def compare(
    found: Iterable[Record], before: Mapping[str, Record], *, bars: Sequence[Bar] = BARS
) -> list[Finding]:
    """Set what is measured now beside what was.

    Args:
        found: the records of this run.
        before: those of an earlier run of the same size, by measurement.
        bars: which ratios are compared.
    """
    now = {record.measurement: record for record in found}
    return [
        Finding(bar=bar, now=_measured(bar, now), before=_measured(bar, before)) for bar in bars
    ]


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print what holds and what does not."""
    table = Table(
        title=f"ratios, which may be worse by {SLACK:.0%} than before or than the bar, whichever"
        " is the weaker",
        title_justify="left",
    )
    for number, heading in enumerate(("", "now", "before", "bar", "")):
        table.add_column(heading, justify="right" if 0 < number < 4 else "left")
    for each in findings:
        table.add_row(
            each.bar.name, _figure(each.now), _figure(each.before), each.bar.wanted, each.word
        )
    console.print(table)


def _measured(bar: Bar, records: Mapping[str, Record]) -> float | None:
    record = records.get(bar.measurement)
    return None if record is None else bar.measured(record.runs, record.better)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
