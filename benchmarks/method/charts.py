"""Measurements as pictures: the median of each contender, with its least and its most."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.method.results import Record
from benchmarks.method.table import figure

WIDTH_IN = 8.0
BAR_IN = 0.32
TITLE_IN = 0.75
OURS, PEERS, SPREAD, TEXT = "#d9662b", "#7b94ad", "#33414e", "#1f2933"
# A page may be read on dark ground: the picture brings its own.
GROUND = "#ffffff"


def draw(path: Path, records: Sequence[Record]) -> None:
    """Draw one chart a measurement, one below the other, as an SVG.

    Args:
        path: where to.
        records: of one question.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    heights = [TITLE_IN + BAR_IN * len(record.runs) for record in records]
    # The same file each time: no random names, no date.
    with mpl.rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none", "font.size": 9}):
        sheet = Figure(figsize=(WIDTH_IN, sum(heights)), layout="constrained", facecolor=GROUND)
        axes = sheet.subplots(len(records), 1, squeeze=False, height_ratios=heights)[:, 0]
        for each, record in zip(axes, records, strict=True):
            _chart(each, record)
        metadata = {"Date": None, "Creator": None, "Description": _digest(records)}
        sheet.savefig(path, format="svg", metadata=metadata)
    # matplotlib leaves blanks at the ends of lines.
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line.rstrip()}\n" for line in lines))


def shows(path: Path, records: Sequence[Record]) -> bool:
    """Say whether a picture was drawn from these records."""
    return path.exists() and _digest(records) in path.read_text()


def _chart(axes, record: Record) -> None:  # type: ignore[no-untyped-def]
    names = list(record.runs)
    values = [[run.value for run in record.runs[name]] for name in names]
    middles = [float(np.median(each)) for each in values]
    places = np.arange(len(names))
    axes.barh(places, middles, 0.62, color=[_colour(name, record.first) for name in names])
    spread = [
        [middle - min(each) for middle, each in zip(middles, values, strict=True)],
        [max(each) - middle for middle, each in zip(middles, values, strict=True)],
    ]
    axes.errorbar(middles, places, xerr=spread, fmt="none", ecolor=SPREAD, elinewidth=1, capsize=2)
    widest = max(max(each) for each in values)
    for place, middle, each in zip(places, middles, values, strict=True):
        axes.text(max(each) + widest * 0.015, place, figure(middle), va="center", color=TEXT)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlim(0, widest * 1.12)
    axes.set_title(
        f"{record.title}: {record.unit}, {record.better} is better", loc="left", fontsize=10
    )
    axes.xaxis.set_visible(False)
    axes.tick_params(length=0, colors=TEXT)
    for side in axes.spines.values():
        side.set_visible(False)


def _colour(name: str, first: str) -> str:
    return OURS if name == first or name.startswith("rabbitry") else PEERS


def _digest(records: Sequence[Record]) -> str:
    text = json.dumps([record.document()["runs"] for record in records], sort_keys=True)
    return f"of {hashlib.sha256(text.encode()).hexdigest()}"
