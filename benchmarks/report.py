"""Writes docs/benchmarks.md and its pictures from a results file: ``python -m benchmarks.report``.

The figures are the file's, the words stand beside each question. ``--keep FILE`` first lets what
was measured into FILE take the place of what was kept of it, and ``--check`` only says whether the
page is what the file gives.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.method import charts, results
from benchmarks.method.bars import BARS, Bar
from benchmarks.method.children import ROOT
from benchmarks.method.command import QUESTIONS
from benchmarks.method.results import Record
from benchmarks.method.table import columns, rows

PAGE = ROOT / "docs" / "benchmarks.md"
PICTURES = ROOT / "docs" / "pictures"

HEAD = """\
# Beside its peers

What does it cost, what is gained, how does it grow? Measured in one run by `make bench`, one file a
question in [`benchmarks/`](../benchmarks), each of which runs by itself, such as
`python -m benchmarks.publish`. This page is written by `make bench-report` from
[`{source}`](../{source}):
measure on your own machine before you believe it.

**How it is measured.** All contenders meet the same RabbitMQ, the same type of queue, the same
durability and the same payload, each in the configuration that its own documentation recommends for
that. They run in turn, once a round, after a round that does not count; a ratio is taken pair by
pair within each round, and what is shown is the median of the rounds with the least and the most.
After every run each message has to be accounted for: one that is lost, left, dead or run twice ends
the benchmark. The processor's time is that of all processes of a contender, and beside it that of
RabbitMQ: on a machine whose cores both share, the sum is what a job costs.
"""
MISSING = "not measured"


def page(records: Mapping[str, Record], *, source: str) -> str:
    """Return the page.

    Args:
        records: by measurement.
        source: the results file, as the page names it.
    """
    parts = [HEAD.format(source=source), _machine(records.values()), _bars(records)]
    for name in QUESTIONS:
        found = results.of_question(records.values(), name)
        if found:
            parts.append(_question(name, found))
    return "\n".join(parts)


def _machine(records: Iterable[Record]) -> str:
    """Say once what is the same in all records, and that it is not where it is not."""
    them = list(records)
    lines = ["## The machine\n", "| | |", "| --- | --- |"]
    for title, key in (("machine", "machine"), ("RabbitMQ", "rabbitmq"), ("versions", "versions")):
        merged: dict[str, list[str]] = {}
        for record in them:
            for name, value in getattr(record, key).items():
                text = _fact(name, value)
                seen = merged.setdefault(name, [])
                if text not in seen:
                    seen.append(text)
        shown = "; ".join(" or ".join(seen) for seen in merged.values())
        lines.append(f"| {title} | {shown} |")
    loads = [record.load["before"] for record in them if record.load]
    if loads:
        lines.append(f"| load before each | {min(loads):.1f} to {max(loads):.1f} |")
    days = sorted({record.at[:10] for record in them if record.at})
    lines.append(f"| measured | {' and '.join(days)} |")
    return "\n".join(lines) + "\n"


def _bars(records: Mapping[str, Record]) -> str:
    lines = [
        "## What it has to reach\n",
        "Each is the ratio of one contender's value to another's, or, where less is better and it"
        " says so, how many times as fast the one is.\n",
        "| measurement | this | to that | asked for | measured | in the rounds | |",
        "| --- | --- | --- | --- | ---: | --- | --- |",
    ]
    for bar in BARS:
        record = records.get(bar.measurement)
        found = [] if record is None else bar.pairs(record.runs, record.better)
        lines.append(_bar(bar, record, found))
    return "\n".join(lines) + "\n"


def _bar(bar: Bar, record: Record | None, found: Sequence[float]) -> str:
    title = bar.measurement if record is None else f"{record.title}, {record.unit}"
    first = bar.first if isinstance(bar.first, str) else f"best of: {'; '.join(bar.first)}"
    wanted = f"{bar.wanted}{' times as fast' if bar.times_as_fast else ''}"
    if not found:
        return _row([title, first, bar.other, wanted, MISSING, "", ""])
    middle = float(np.median(found))
    verdict = "reached" if bar.reached(middle) else "**not reached**"
    spread = f"{min(found):.2f} to {max(found):.2f}"
    return _row([title, first, bar.other, wanted, f"{middle:.2f}", spread, verdict])


def _question(name: str, records: Sequence[Record]) -> str:
    module: Any = import_module(f"benchmarks.{name}")
    lines = [f"## {module.ASKS}\n", f"{module.MEANING.strip()}\n"]
    lines.append(f"![{module.ASKS}](pictures/{_picture(name).name})\n")
    for record in records:
        lines += [f"**{record.title[:1].upper()}{record.title[1:]}**\n", _table(record)]
        if record.missing:
            each = "; ".join(f"{name} ({why})" for name, why in record.missing.items())
            lines.append(f"Not measured: {each}.\n")
        if record.notes:
            each = "; ".join(_fact(key, value) for key, value in record.notes.items())
            lines.append(f"The same for all: {each}.\n")
    return "\n".join(lines)


def _table(record: Record) -> str:
    headings = columns(record)
    lines = [_row(headings), _row(["---"] + ["---:"] * (len(headings) - 1))]
    for row in rows(record):
        name = f"**{row[0]}**" if row[0] == record.first else row[0]
        lines.append(_row([name, *row[1:]]))
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _fact(name: str, value: Any) -> str:
    """Return a name and what it has: ``memory 24,105 MiB``."""
    words, in_mib, _ = name.partition("_mib")
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    text = f"{value:,}" if isinstance(value, int | float) else str(value)
    return f"{words.replace('_', ' ')} {text}{' MiB' if in_mib else ''}"


def _picture(question: str) -> Path:
    return PICTURES / f"benchmark-{question}.svg"


def pictures(records: Mapping[str, Record]) -> Iterator[tuple[Path, list[Record]]]:
    """Yield the picture of each question and the records that it shows."""
    for name in QUESTIONS:
        found = results.of_question(records.values(), name)
        if found:
            yield _picture(name), found


def kept() -> str:
    """Return the page of the results that are kept with the source."""
    return page(results.read(results.REFERENCE), source=_source(results.REFERENCE))


def _source(file: Path) -> str:
    path = file.resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def main(arguments: Sequence[str]) -> int:
    """Write the page and its pictures, or check them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description="Write docs/benchmarks.md."
    )
    parser.add_argument("file", nargs="?", type=Path, default=results.REFERENCE, help="the results")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    parser.add_argument(
        "--keep", type=Path, metavar="FILE", help="results to keep with the source, small ones too"
    )
    options = parser.parse_args(arguments)
    if options.keep:
        results.keep(list(results.read(options.keep).values()))
    records = results.read(options.file)
    text = page(records, source=_source(options.file))
    if options.check:
        stale = [] if PAGE.exists() and PAGE.read_text() == text else [PAGE]
        stale += [path for path, them in pictures(records) if not charts.shows(path, them)]
        for path in stale:
            sys.stderr.write(f"{path.relative_to(ROOT)} is out of date: run `make bench-report`\n")
        return 1 if stale else 0
    PAGE.write_text(text)
    for path, them in pictures(records):
        charts.draw(path, them)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
