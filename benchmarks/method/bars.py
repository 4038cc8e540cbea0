"""What this project has to reach, in one place: each bar is a ratio of two contenders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.method.rounds import Better, Run, ratios

# A ratio may fall by so much before the guard says so.
SLACK = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """How one contender has to stand to another.

    Attributes:
        measurement: where both are measured.
        first: the contender; of several the best counts.
        other: what it is set in proportion to.
        ratio: of the first's value to the other's.
        at: least or most.
        times_as_fast: the ratio is the other's value to the first's: where a smaller value is
            better and the bar is told as so many times as fast.
    """

    measurement: str
    first: str | tuple[str, ...]
    other: str
    ratio: float
    at: Literal["least", "most"] = "least"
    times_as_fast: bool = False

    @property
    def name(self) -> str:
        """What a guard and a page call it."""
        firsts = self.first if isinstance(self.first, str) else f"best of {len(self.first)}"
        return f"{self.measurement}: {firsts} : {self.other}"

    @property
    def question(self) -> str:
        """The file that measures it."""
        return self.measurement.partition(".")[0]

    @property
    def wanted(self) -> str:
        """The bar in words."""
        return f"at {self.at} {self.ratio:g}"

    @property
    def contenders(self) -> tuple[str, ...]:
        """All that it names."""
        return (*((self.first,) if isinstance(self.first, str) else self.first), self.other)

    def pairs(self, runs: Mapping[str, Sequence[Run]], better: Better) -> list[float]:
        """Return the ratio of each round; nothing where a contender is missing.

        Args:
            runs: of all contenders of the measurement.
            better: which of two values.
        """
        firsts = (self.first,) if isinstance(self.first, str) else self.first
        known = [name for name in firsts if runs.get(name)]
        if not known or not runs.get(self.other):
            return []
        sign = 1 if better == "more" else -1
        best = max(known, key=lambda name: sign * np.median([run.value for run in runs[name]]))
        if self.times_as_fast:
            return ratios(runs[self.other], runs[best])
        return ratios(runs[best], runs[self.other])

    def measured(self, runs: Mapping[str, Sequence[Run]], better: Better) -> float | None:
        """Return the median of the ratios of the rounds, None where a contender is missing."""
        found = self.pairs(runs, better)
        return float(np.median(found)) if found else None

    def reached(self, found: float) -> bool:
        """Say whether a ratio is good enough."""
        return found >= self.ratio if self.at == "least" else found <= self.ratio

    def fallen(self, found: float, reference: float | None) -> bool:
        """Say whether a ratio is worse by more than a quarter than it was, or has to be.

        Args:
            found: now.
            reference: what was measured before; the weaker of it and of the bar is the
                measure, so that neither a bar that was never reached nor a better machine
                raises an alarm.
        """
        if self.at == "least":
            weaker = self.ratio if reference is None else min(self.ratio, reference)
            return found < weaker * (1 - SLACK)
        weaker = self.ratio if reference is None else max(self.ratio, reference)
        return found > weaker / (1 - SLACK)

    def verdict(self, found: float | None) -> str:
        """Return PASS or FAIL with the figures, or NOT MEASURED."""
        if found is None:
            return f"NOT MEASURED, {self.wanted}"
        return f"{'PASS' if self.reached(found) else 'FAIL'}, {found:.2f}, {self.wanted}"


OURS = "rabbitry, prefork"
MANY = "rabbitry, many"
POOLS = (OURS, "rabbitry, threads", "rabbitry, solo")
CELERY = "Celery, prefork"
CELERY_RPC = "Celery rpc://, prefork"
# Growth: so many jobs, one way.
BATCHES = "batches of 500"
TEN_THOUSAND, MANY_JOBS = "10,000 jobs", ("100,000 jobs", "1,000,000 jobs")

# Medians of the ratios of one run: two cores, RabbitMQ 4.3, quorum queues, persistent messages,
# confirmed, acknowledged late.
BARS = (
    Bar(measurement="publish", first=MANY, other="Celery, confirmed", ratio=25),
    Bar(measurement="publish", first=MANY, other="Celery, unconfirmed", ratio=9),
    Bar(measurement="publish", first=MANY, other="aio-pika, gathered", ratio=3),
    Bar(measurement="publish", first=MANY, other="librabbitmq, C", ratio=0.5),
    # No-op jobs, two slots: a prefetch of 64, and of as many as there are slots.
    Bar(measurement="consume.wide", first=OURS, other=CELERY, ratio=1.5),
    Bar(measurement="consume.narrow", first=OURS, other=CELERY, ratio=1),
    # 2,000 outstanding calls, a second; and the median of one call at a time, in ms.
    Bar(measurement="call.outstanding", first=POOLS, other=CELERY_RPC, ratio=4),
    Bar(measurement="call.outstanding", first=OURS, other=CELERY_RPC, ratio=2.5),
    Bar(measurement="call.one", first=OURS, other="pika, bare", ratio=1.5, at="most"),
    Bar(measurement="call.one", first=OURS, other=CELERY_RPC, ratio=0.7, at="most"),
    # 8 MB of float64 there and back, in ms.
    Bar(
        measurement="arrays",
        first=OURS,
        other="Celery rpc://, JSON",
        ratio=20,
        times_as_fast=True,
    ),
    Bar(measurement="arrays", first=OURS, other="pika, the same bytes", ratio=1.3, at="most"),
    Bar(measurement="batches", first="batches of 100", other="one by one", ratio=4),
    # The wait of a high-priority job behind 100,000 low ones, in ms.
    Bar(measurement="priority", first="rabbitry", other="one low job", ratio=1, at="most"),
    # 5,000 objects from nothing, in ms.
    Bar(
        measurement="topology.apply",
        first="rabbitry apply",
        other="one import",
        ratio=1.3,
        at="most",
    ),
    # Memory at its highest, in MiB. The small version has no time for a million.
    *(
        Bar(
            measurement=measurement,
            first=f"{who}: {many}",
            other=f"{who}: {TEN_THOUSAND}",
            ratio=1.1,
            at="most",
        )
        for measurement, who in (("scale.publisher", "rabbitry"), ("scale.worker", BATCHES))
        for many in MANY_JOBS
    ),
)


def bars_of(measurement: str) -> tuple[Bar, ...]:
    """Return the bars of one measurement."""
    return tuple(bar for bar in BARS if bar.measurement == measurement)
