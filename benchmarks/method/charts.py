"""Measurements as pictures: the median of each contender, with its least and its most.

Where all contenders of a measurement are named ``who: where``, such as ``rabbitry: 4 workers``, and
each has three places or more, the places are joined: a curve for each, on a logarithmic scale where
they lie far apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.method.results import Record
from benchmarks.method.rounds import Run
from benchmarks.method.table import figure

WIDTH_IN = 8.0
BAR_IN = 0.32
TITLE_IN = 0.75
LINES_IN = 3.0
FEWEST_PLACES = 3
FAR_APART = 50
OURS, PEERS, SPREAD, TEXT = "#d9662b", "#7b94ad", "#33414e", "#1f2933"
PEERS_TOO = (PEERS, "#4f9d77", "#8a6fb0", "#b8a13c")
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

    heights = [_height_in(record) for record in records]
    # The same file each time: no random names, no date.
    with mpl.rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none", "font.size": 9}):
        sheet = Figure(figsize=(WIDTH_IN, sum(heights)), layout="constrained", facecolor=GROUND)
        axes = sheet.subplots(len(records), 1, squeeze=False, height_ratios=heights)[:, 0]
        for each, record in zip(axes, records, strict=True):
            if curves := _curves(record):
                _lines(each, record, curves)
            else:
                _bars(each, record)
        metadata = {"Date": None, "Creator": None, "Description": _digest(records)}
        sheet.savefig(path, format="svg", metadata=metadata)
    # matplotlib leaves blanks at the ends of lines.
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line.rstrip()}\n" for line in lines))


def shows(path: Path, records: Sequence[Record]) -> bool:
    """Say whether a picture was drawn from these records."""
    return path.exists() and _digest(records) in path.read_text()


def _curves(record: Record) -> dict[str, dict[str, Sequence[Run]]]:
    """Return the runs by who and where; nothing where the names do not say so."""
    found: dict[str, dict[str, Sequence[Run]]] = {}
    for name, runs in record.runs.items():
        who, _, where = name.partition(": ")
        found.setdefault(who, {})[where] = runs
    enough = all(len(places) >= FEWEST_PLACES for places in found.values())
    return found if enough and "" not in found else {}


def _height_in(record: Record) -> float:
    return LINES_IN if _curves(record) else TITLE_IN + BAR_IN * len(record.runs)


def _lines(axes: Any, record: Record, curves: Mapping[str, Mapping[str, Sequence[Run]]]) -> None:
    places = list(dict.fromkeys(where for each in curves.values() for where in each))
    peers = iter(PEERS_TOO)
    every = [run.value for each in curves.values() for runs in each.values() for run in runs]
    for who, each in curves.items():
        values = [[run.value for run in runs] for runs in each.values()]
        middles = [float(np.median(them)) for them in values]
        axes.errorbar(
            [places.index(where) for where in each],
            middles,
            yerr=_spread(middles, values),
            label=who,
            color=OURS if who.startswith("rabbitry") else next(peers, PEERS),
            marker="o",
            markersize=4,
            capsize=2,
        )
    axes.set_xticks(range(len(places)), places)
    if max(every) > FAR_APART * min(every) > 0:
        axes.set_yscale("log")
        axes.minorticks_off()
    else:
        axes.set_ylim(0, max(every) * 1.08)
    axes.yaxis.set_major_formatter(lambda value, _: figure(value) if value else "0")
    axes.grid(axis="y", color="#dde3e8")
    axes.legend(frameon=False, loc="best")
    _finish(axes, record)


def _bars(axes: Any, record: Record) -> None:
    names = list(record.runs)
    values = [[run.value for run in record.runs[name]] for name in names]
    middles = [float(np.median(each)) for each in values]
    places = np.arange(len(names))
    axes.barh(places, middles, 0.62, color=[_colour(name, record.first) for name in names])
    spread = _spread(middles, values)
    axes.errorbar(middles, places, xerr=spread, fmt="none", ecolor=SPREAD, elinewidth=1, capsize=2)
    widest = max(max(each) for each in values)
    for place, middle, each in zip(places, middles, values, strict=True):
        axes.text(max(each) + widest * 0.015, place, figure(middle), va="center", color=TEXT)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlim(0, widest * 1.12)
    axes.xaxis.set_visible(False)
    _finish(axes, record)


def _spread(middles: Sequence[float], values: Sequence[Sequence[float]]) -> list[list[float]]:
    return [
        [middle - min(each) for middle, each in zip(middles, values, strict=True)],
        [max(each) - middle for middle, each in zip(middles, values, strict=True)],
    ]


def _finish(axes: Any, record: Record) -> None:
    axes.set_title(
        f"{record.title}: {record.unit}, {record.better} is better", loc="left", fontsize=10
    )
    axes.tick_params(length=0, colors=TEXT)
    for side in axes.spines.values():
        side.set_visible(False)


def _colour(name: str, first: str) -> str:
    return OURS if name == first or name.startswith("rabbitry") else PEERS


def _digest(records: Sequence[Record]) -> str:
    text = json.dumps([record.document()["runs"] for record in records], sort_keys=True)
    return f"of {hashlib.sha256(text.encode()).hexdigest()}"
