"""The demo's picture: each series and its spectrum, and the waiting times by band."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from demo_report import Band, Finding
from matplotlib.layout_engine import ConstrainedLayoutEngine

mpl.use("Agg")

import matplotlib.pyplot as plt

INK, FAINT, GRID = "#22303c", "#8a97a3", "#e3e8ec"
RAW, TREND, PEAK = "#9fb3c8", "#0b6e99", "#d9480f"
BAND_COLOURS = {"high": "#d9480f", "normal": "#b08900", "low": "#0b6e99"}
STYLE: dict[Any, Any] = {
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
# How far the spectra are drawn, in cycles per year: what lies beyond is noise.
SHOWN_CYCLES = {"sunspots": 0.5, "co2": 3.2}
METHODS = {
    "moving": "moving average",
    "gaussian": "Gaussian kernel",
    "savitzky_golay": "Savitzky-Golay",
}


def draw(
    path: Path, bands: list[Band], findings: list[Finding], *, rabbitmq: Mapping[str, str]
) -> None:
    """Write the picture as PNG."""
    with mpl.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.12, hspace=0.04, wspace=0.04)
        figure = plt.figure(figsize=(11, 11.4), layout=layout)
        grid = figure.add_gridspec(len(findings) + 1, 5)
        for row, finding in enumerate(findings):
            _series(figure.add_subplot(grid[row, :3]), finding)
            _spectrum(figure.add_subplot(grid[row, 3:]), finding)
        _waiting(figure.add_subplot(grid[-1, :3]), bands)
        _ledger(figure.add_subplot(grid[-1, 3:]), bands)
        jobs = sum(band.queued for band in bands)
        figure.suptitle(
            f"rabbitry: {jobs:,} jobs over RabbitMQ {rabbitmq['version']}, in three bands",
            fontsize=15,
            fontweight="bold",
            x=0.012,
            ha="left",
        )
        figure.savefig(path, dpi=130)
        plt.close(figure)


def _series(axes: Any, finding: Finding) -> None:
    series = finding.series
    window, method = series.trend["window"], METHODS[series.trend["method"]]
    axes.plot(series.times, series.values, color=RAW, linewidth=1.0, label="measured")
    axes.plot(
        series.times,
        finding.trend,
        color=TREND,
        linewidth=2.0,
        label=f"signal.smooth: {method}, {window} {series.step}s",
    )
    axes.set_title(series.title)
    axes.set_xlabel("year")
    axes.set_ylabel(series.unit)
    axes.margins(x=0.01)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.16 * (high - low))  # room for the legend
    axes.legend(loc="upper left", ncols=2)


def _spectrum(axes: Any, finding: Finding) -> None:
    series = finding.series
    cycles = finding.spectrum["frequencies"] * series.steps_per_year
    shown = (cycles > 0) & (cycles <= SHOWN_CYCLES[series.name])
    axes.fill_between(cycles[shown], finding.spectrum["power"][shown], color=RAW, linewidth=0)
    axes.plot(cycles[shown], finding.spectrum["power"][shown], color=TREND, linewidth=1.2)
    period, peak = finding.spectrum["strongest_period"], 1 / finding.period_years
    axes.axvline(peak, color=PEAK, linewidth=1.2, linestyle=(0, (4, 3)))
    top = float(finding.spectrum["power"][shown].max())
    axes.set_ylim(0, 1.12 * top)
    axes.annotate(
        f"strongest period\n{period:.1f} {series.step}s"
        + ("" if series.step == "year" else f" = {finding.period_years:.2f} years"),
        (peak, top),
        xytext=(9, 2),
        textcoords="offset points",
        color=PEAK,
        fontweight="bold",
        va="top",
    )
    axes.set_title("Its spectrum: signal.spectrum")
    axes.set_xlabel("cycles per year")
    axes.set_ylabel(f"power ({series.unit}² {series.step}s)")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_xlim(0, SHOWN_CYCLES[series.name])


def _waiting(axes: Any, bands: list[Band]) -> None:
    for band in bands:
        if not band.waited_s.size:
            continue
        # The clocks tell milliseconds: what is less is drawn as half of one.
        waited_ms = np.maximum(np.sort(band.waited_s) * 1e3, 0.5)
        share = np.arange(1, waited_ms.size + 1) / waited_ms.size * 100
        axes.step(
            np.r_[waited_ms[0], waited_ms],
            np.r_[0, share],
            where="post",
            color=BAND_COLOURS[band.name],
            linewidth=2.0,
            label=f"{band.name}: {waited_ms.size:,} jobs, median {np.median(waited_ms):,.0f} ms",
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_ylim(0, 104)
    axes.set_title("Waiting times by band")
    axes.set_xlabel("milliseconds from publishing to the start of the task")
    axes.set_ylabel("jobs begun by then (%)")
    axes.legend(loc="best")


def _ledger(axes: Any, bands: list[Band]) -> None:
    axes.set_axis_off()
    axes.set_title("What became of them")
    columns = [
        "",
        "queued",
        "done",
        "failed",
        "no\nanswer",
        "p50\n(ms)",
        "p95\n(ms)",
        "p99\n(ms)",
    ]
    cells = []
    for band in bands:
        times = (
            "" if value is None else f"{value:,.0f}" for value in band.percentiles_ms().values()
        )
        cells.append(
            [band.name, f"{band.queued:,}", *(f"{n:,}" for n in band.fates.values()), *times]
        )
    table = axes.table(
        cellText=cells, colLabels=columns, cellLoc="right", loc="upper center", edges="horizontal"
    )
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    table.auto_set_column_width(range(len(columns)))
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor(GRID)
        cell.set_height(0.17 if row == 0 else 0.12)
        if column == 0 and row:
            cell.set_text_props(
                color=BAND_COLOURS[bands[row - 1].name], fontweight="bold", ha="left"
            )
        if row == 0:
            cell.set_text_props(color=FAINT)
    axes.text(0.0, 0.4, _sentences(bands), va="top", linespacing=1.6, transform=axes.transAxes)


def _sentences(bands: list[Band]) -> str:
    low = next(band for band in bands if band.name == "low")
    high = next(band for band in bands if band.name == "high")
    lines = []
    if high.waited_s.size and low.waited_s.size:
        lines += [
            f"While {low.queued:,} smoothing jobs took their turn, half of",
            f"the urgent calls began within {np.median(high.waited_s) * 1e3:,.0f} ms"
            f" (low: {np.median(low.waited_s) * 1e3:,.0f} ms).",
            "",
        ]
    queued = sum(band.queued for band in bands)
    done, failed = (sum(band.fates[fate] for band in bands) for fate in ("done", "failed"))
    lines += [
        f"The ledger {'closes' if all(band.closed for band in bands) else 'is open'}:",
        f"{queued:,} queued, {done:,} done, {failed:,} failed,"
        f" {queued - done - failed:,} without an answer.",
    ]
    return "\n".join(lines)
