"""Interleaved rounds: every contender once a round, in turn, so that all meet the same machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

ROUNDS = 5
# Of the small version, which only a guard reads.
SMALL_ROUNDS = 3
Better = Literal["more", "less"]
PERCENTILES = (50, 90, 99, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one contender did in one round.

    Attributes:
        value: in the measurement's unit.
        jobs: how many jobs the processor's seconds were taken for.
        client_s: seconds of a processor, of all processes of the contender.
        broker_s: seconds of a processor that RabbitMQ took in the same time; None where its
            process cannot be seen.
        resident_mib: memory of the contender's processes, at its highest.
        latencies_ms: by percentile, 100 being the longest; see `latencies`.
    """

    value: float
    jobs: int | None = None
    client_s: float | None = None
    broker_s: float | None = None
    resident_mib: float | None = None
    latencies_ms: Mapping[int, float] | None = None

    @property
    def client_us(self) -> float | None:
        """Microseconds of a processor that one job took of the contender."""
        return _each_us(self.client_s, self.jobs)

    @property
    def broker_us(self) -> float | None:
        """Microseconds of a processor that one job took of RabbitMQ."""
        return _each_us(self.broker_s, self.jobs)


Contender = Callable[[], "Run | float"]


def latencies(seconds: ArrayLike) -> dict[int, float]:
    """Return the percentiles of durations.

    Args:
        seconds: one a job or a call.

    Returns:
        Milliseconds, by percentile: 50, 90, 99, and 100 for the longest.
    """
    found = np.percentile(np.asarray(seconds, dtype=float) * 1e3, PERCENTILES)
    return {each: float(value) for each, value in zip(PERCENTILES, found, strict=True)}


def measure(
    contenders: Mapping[str, Contender], *, rounds: int = ROUNDS, warm_up: bool = True
) -> dict[str, list[Run]]:
    """Run every contender once a round, after one round that does not count.

    The first round goes in the order that is given, and each later one begins with another, so that
    none always comes after the same.

    Args:
        contenders: by name; each does its work and returns what came of it.
        rounds: how many count.
        warm_up: False only where a run begins with new processes and leaves nothing behind
            that a later one finds warm.
    """
    names = list(contenders)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    begin = 0 if warm_up else 1
    for number in range(begin, rounds + 1):
        turn = (number - begin) % len(names)
        for name in (*names[turn:], *names[:turn]):
            _say(f"round {number} of {rounds}: {name}" if number else f"warm-up: {name}")
            found = contenders[name]()
            if number:
                runs[name].append(found if isinstance(found, Run) else Run(value=float(found)))
    _say("")
    return runs


def ratio(first: Sequence[Run], other: Sequence[Run]) -> float:
    """Return the median of the first's values to the other's, pair by pair within a round."""
    return float(np.median(ratios(first, other)))


def ratios(first: Sequence[Run], other: Sequence[Run]) -> list[float]:
    """Return the first's value to the other's, one a round.

    Raises:
        ValueError: one has more rounds than the other.
    """
    return [mine.value / its.value for mine, its in zip(first, other, strict=True)]


def median(values: Sequence[float | None]) -> float | None:
    """Return the median, or None where a value is missing."""
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known and len(known) == len(values) else None


def _each_us(seconds: float | None, jobs: int | None) -> float | None:
    return None if seconds is None or not jobs else 1e6 * seconds / jobs


def _say(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
