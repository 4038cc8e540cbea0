"""The demo's figures: counts and waiting times by band, the strongest period of each series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from demo_load import BANDS, Outcome, Series
from numpy.typing import NDArray

PERCENTILES = (50, 95, 99)
FATES = ("done", "failed", "unanswered")
# Of the table: it fits into 80 characters.
COLUMNS = (
    *("band", "queued", "done", "failed", "no answer"),
    *(f"wait p{percent}" for percent in PERCENTILES),
)


@dataclass(frozen=True, slots=True)
class Band:
    """What became of the jobs of one band.

    Attributes:
        queued: jobs handed to RabbitMQ, counted when they were submitted.
        fates: how many of them were done, failed, unanswered, counted by their answers.
        waited_s: shape (answers,), seconds from publishing to the start of the task.
        ran_s: shape (answers,), seconds that the task took.
    """

    name: str
    queued: int
    fates: Mapping[str, int]
    waited_s: NDArray[np.float64]
    ran_s: NDArray[np.float64]

    @property
    def closed(self) -> bool:
        """Whether every job queued was answered."""
        return self.queued == self.fates["done"] + self.fates["failed"]

    def percentiles_ms(self) -> dict[str, float | None]:
        """Return p50, p95 and p99 of the waiting times in milliseconds."""
        if not self.waited_s.size:
            return {f"p{percent}": None for percent in PERCENTILES}
        values = np.percentile(self.waited_s * 1e3, PERCENTILES)
        return {
            f"p{percent}": round(float(value), 3)
            for percent, value in zip(PERCENTILES, values, strict=True)
        }


@dataclass(frozen=True, slots=True)
class Finding:
    """What the jobs found in one series.

    Attributes:
        trend: shape (n,), the smoothed series of the picture.
        spectrum: the result of signal.spectrum, detrended.
        summary: the result of signal.summary.
    """

    series: Series
    trend: NDArray[np.float64]
    spectrum: Mapping[str, Any]
    summary: Mapping[str, Any]

    @property
    def period_years(self) -> float:
        return float(self.spectrum["strongest_period"] / self.series.steps_per_year)

    @property
    def sentence(self) -> str:
        """The strongest period in words."""
        period, step = self.spectrum["strongest_period"], self.series.step
        text = f"{self.series.title}: the strongest period is {period:.2f} {step}s"
        return text if step == "year" else f"{text}, {self.period_years:.3f} years"


def bands_of(outcomes: list[Outcome], queued: Mapping[str, int]) -> list[Band]:
    """Count the outcomes by band."""
    bands = []
    for name in BANDS:
        own = [outcome for outcome in outcomes if outcome.order.band == name]
        bands.append(
            Band(
                name=name,
                queued=queued[name],
                fates={fate: sum(outcome.fate == fate for outcome in own) for fate in FATES},
                waited_s=np.array([o.waited_s for o in own if o.waited_s is not None]),
                ran_s=np.array([o.ran_s for o in own if o.ran_s is not None]),
            )
        )
    return bands


def findings_of(outcomes: list[Outcome], series: list[Series]) -> list[Finding]:
    """Pick what the picture and the table show of each series; empty where a job failed."""
    found = []
    for one in series:
        results = {
            outcome.order.job: outcome.result
            for outcome in reversed(outcomes)
            if outcome.fate == "done"
            and outcome.order.series is one
            and (outcome.order.job != "signal.smooth" or outcome.order.options == one.trend)
            and outcome.order.options.get("detrend", True)
        }
        if len(results) == 3:
            found.append(
                Finding(
                    one,
                    results["signal.smooth"],
                    results["signal.spectrum"],
                    results["signal.summary"],
                )
            )
    return found


def figures(
    bands: list[Band], findings: list[Finding], *, rabbitmq: Mapping[str, str], seconds: float
) -> dict[str, Any]:
    """Return the report as JSON's values."""
    return {
        "rabbitmq": dict(rabbitmq),
        "seconds": round(seconds, 2),
        "closed": all(band.closed for band in bands),
        "bands": {
            band.name: {"queued": band.queued, **band.fates, "waited_ms": band.percentiles_ms()}
            for band in bands
        },
        "series": {
            finding.series.name: {
                "strongest_period": finding.spectrum["strongest_period"],
                "step": finding.series.step,
                "strongest_period_years": finding.period_years,
                "summary": dict(finding.summary),
            }
            for finding in findings
        },
    }


def rows(bands: list[Band]) -> list[list[str]]:
    """Return the table: a row a band, and the ledger's last line."""
    table = []
    for band in bands:
        times = (
            "" if value is None else f"{value:,.0f} ms" for value in band.percentiles_ms().values()
        )
        counts = (f"{number:,}" for number in (band.queued, *band.fates.values()))
        table.append([band.name, *counts, *times])
    totals = [sum(band.queued for band in bands)]
    totals += [sum(band.fates[fate] for band in bands) for fate in FATES]
    table.append(["all", *(f"{total:,}" for total in totals), *[""] * len(PERCENTILES)])
    return table
