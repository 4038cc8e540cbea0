"""The demo's load: smoothing of low priority, and calls of high priority while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from datetime import date
from itertools import count, islice, product
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.errors import CallTimeout, OutcomeUnknown
from consumers.jobs.periodogram import spectrum
from consumers.jobs.smoothing import smooth
from consumers.jobs.statistics import summary
from producers.caller import Call, Caller
from producers.data import read_column

# The bands in the order of their urgency, each with the priority of its messages (0-31).
BANDS = {"high": 9, "normal": 4, "low": 0}
# A job's deadline too: what an interrupted run leaves behind is not run much later.
TIMEOUT_S = 60.0
LOOK_EVERY_S = 0.2
# Of float64's digits, a sum may lose some where the data lie differently in memory.
TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Series:
    """One of the real series.

    Attributes:
        name: key in the report.
        title, unit: for people.
        step: what lies between two samples, such as ``week``.
        steps_per_year: how many of them make a year.
        times: shape (n,), in years.
        values: shape (n,), NaN where nothing was measured.
        trend: the smoothing whose result the picture shows.
    """

    name: str
    title: str
    unit: str
    step: str
    steps_per_year: float
    times: NDArray[np.float64]
    values: NDArray[np.float64]
    trend: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Order:
    """One job to call: in which band, what, on which series, how."""

    band: str
    job: str
    series: Series
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one order.

    Attributes:
        fate: ``done``, ``failed`` (a definite answer that is no result, or a wrong one) or
            ``unanswered``.
        error: in a sentence where it is not done.
        waited_s: seconds from publishing to the start of the task, by producer's and worker's
            clocks; None where no answer said so.
        ran_s: seconds that the task took; None likewise.
    """

    order: Order
    fate: str
    result: Any = None
    error: str | None = None
    waited_s: float | None = None
    ran_s: float | None = None


def load_series(folder: Path) -> list[Series]:
    """Read the two real series. Raises InvalidData."""
    days = [date.fromisoformat(f"{day:.0f}") for day in read_column(folder / "co2.csv", "date")]
    return [
        Series(
            name="sunspots",
            title="Sunspot activity",
            unit="sunspot number",
            step="year",
            steps_per_year=1.0,
            times=read_column(folder / "sunspots.csv", "YEAR"),
            values=read_column(folder / "sunspots.csv", "SUNACTIVITY"),
            trend={"window": 33, "method": "gaussian"},
        ),
        Series(
            name="co2",
            title="Carbon dioxide at Mauna Loa",
            unit="ppmv",
            step="week",
            steps_per_year=365.2425 / 7,
            times=np.array([day.year + (day.timetuple().tm_yday - 0.5) / 365.25 for day in days]),
            values=read_column(folder / "co2.csv", "co2"),
            trend={"window": 52, "method": "moving"},
        ),
    ]


def smoothings(series: list[Series]) -> Iterator[Order]:
    """Yield orders to smooth without end: first the pictures' trends, then every other way."""
    for one in series:
        yield Order("low", "signal.smooth", one, one.trend)
    for reach in count(2):
        reach = 2 + reach % 50
        for method, one in product(("moving", "savitzky_golay", "gaussian"), series):
            options: dict[str, Any] = {"window": 2 * reach + 1, "method": method}
            if method == "savitzky_golay":
                options["order"] = 2 + reach % 3
            yield Order("low", "signal.smooth", one, options)


def urgent(series: list[Series], jobs: int) -> list[tuple[int, Order]]:
    """Return the calls to make while the smoothing runs: after how many of its jobs, and what.

    Two spectra of high priority to one summary of normal priority, spread over the run.
    """
    calls = min(60, max(6, jobs // 10))
    orders = []
    for number in range(calls):
        one = series[(number // 3) % len(series)]
        if number % 3 == 2:
            order = Order("normal", "signal.summary", one)
        else:
            order = Order("high", "signal.spectrum", one, {"detrend": number % 3 == 0})
        orders.append((number * jobs // calls, order))
    return orders


def run(
    caller: Caller,
    series: list[Series],
    *,
    jobs: int,
    progress: Callable[[Mapping[str, int], Mapping[str, int]], None],
    look: Callable[[], None],
) -> tuple[dict[str, int], list[Outcome]]:
    """Queue the smoothing, call the urgent jobs while it runs, and wait for every answer.

    Args:
        caller: publishes and receives.
        series: what is smoothed.
        jobs: how many smoothing jobs.
        progress: told how many jobs of each band are queued, and how many of them have ended.
        look: called at least every 0.2 s; what it raises ends the run.

    Returns:
        How many jobs of each band were queued, and what became of each.
    """
    ended: SimpleQueue[Call] = SimpleQueue()
    orders: dict[str, Order] = {}
    queued, finished = dict.fromkeys(BANDS, 0), dict.fromkeys(BANDS, 0)
    outcomes: list[Outcome] = []

    def submit(order: Order) -> None:
        call = caller.submit(
            order.job,
            order.series.values,
            priority=BANDS[order.band],
            timeout_s=TIMEOUT_S,
            **order.options,
        )
        orders[call.id] = order
        queued[order.band] += 1
        call.add_done_callback(lambda _: ended.put(call))

    waiting = urgent(series, jobs)
    for order in islice(smoothings(series), jobs):
        submit(order)
    while waiting or len(outcomes) < len(orders):
        while waiting and waiting[0][0] <= finished["low"]:
            submit(waiting.pop(0)[1])
        look()
        progress(queued, finished)
        try:
            call = ended.get(timeout=LOOK_EVERY_S)
        except Empty:
            continue
        outcome = _outcome(orders[call.id], call)
        finished[outcome.order.band] += 1
        outcomes.append(outcome)
    progress(queued, finished)
    return queued, outcomes


def _outcome(order: Order, call: Call) -> Outcome:
    waited_s = call.timing.waited_s if call.timing else None
    ran_s = call.timing.ran_s if call.timing else None
    try:
        result = call.result()
    except (CallTimeout, OutcomeUnknown, CancelledError) as exc:
        return Outcome(order, "unanswered", error=str(exc))
    except Exception as exc:  # noqa: BLE001  (whatever it is, it is this job's answer)
        return Outcome(order, "failed", error=str(exc), waited_s=waited_s, ran_s=ran_s)
    return Outcome(order, "done", result, waited_s=waited_s, ran_s=ran_s)


def checked(outcomes: list[Outcome], look: Callable[[], None]) -> list[Outcome]:
    """Compute every job here once more; a result that differs counts as failed."""
    tasks: dict[str, Callable[..., Any]] = {
        "signal.smooth": smooth,
        "signal.spectrum": spectrum,
        "signal.summary": summary,
    }
    verdicts = []
    for outcome in outcomes:
        look()
        order = outcome.order
        if outcome.fate == "done":
            expected = tasks[order.job](order.series.values, **order.options)
            if not _same(outcome.result, expected):
                text = f"{order.job} on {order.series.name} has another result than here"
                outcome = Outcome(order, "failed", outcome.result, text)
        verdicts.append(outcome)
    return verdicts


def _same(result: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return result.keys() == expected.keys() and all(
            _same(result[key], expected[key]) for key in expected
        )
    if isinstance(expected, np.ndarray):
        return result.shape == expected.shape and np.allclose(
            result, expected, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True
        )
    return bool(result == expected or abs(result - expected) <= TOLERANCE * abs(expected))
