"""What is kept of a measurement: one JSON object a line of a results file.

```
{"measurement": "publish",             its name: the question, and which of its tables
 "title": "published jobs a second",   "unit": "jobs/s",
 "better": "more",                     "first": "rabbitry, many",   "each": "job",
 "small": false,                       true: of the small version, for the guard
 "at": "2026-11-21T19:00:00+00:00",
 "runs": {"rabbitry, many": [          by contender, one a round, all rounds in step
     {"value": 20107.1, "jobs": 20000, "client_s": 0.91, "broker_s": 1.02,
      "resident_mib": 71.2, "latencies_ms": {"50": 1.9, "90": 2.4, "99": 4.0, "100": 9.1}}]},
 "missing": {"librabbitmq, C": "…"},   contenders that could not be measured, and why
 "notes": {"prefetch": 64},            what else was the same for all
 "machine": {…}, "rabbitmq": {…},      see `machine.machine` and `broker.describe`
 "versions": {"celery": "5.7.0"},
 "load": {"before": 0.4, "after": 1.9}}
```

Of a run only `value` is always there. Of several records of one measurement the last counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.method.rounds import Better, Run

HERE = Path(__file__).resolve().parents[1] / "results"
# What docs/benchmarks.md shows, and what the guard compares the small version with.
REFERENCE = HERE / "reference.jsonl"
SMALL = HERE / "small.jsonl"
LATEST = HERE / "latest.jsonl"
LATEST_SMALL = HERE / "latest-small.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One measurement; see the shape above."""

    measurement: str
    title: str
    unit: str
    first: str
    runs: Mapping[str, Sequence[Run]]
    better: Better = "more"
    each: str = "job"
    small: bool = False
    at: str = ""
    missing: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    rabbitmq: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    load: Mapping[str, float] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """The file that asks."""
        return self.measurement.partition(".")[0]

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        found = asdict(self)
        found["runs"] = {
            name: [_run_document(run) for run in runs] for name, runs in self.runs.items()
        }
        return found

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Record:
        """Read one back."""
        runs = {name: [_run_of(each) for each in them] for name, them in document["runs"].items()}
        return cls(**{**document, "runs": runs})


def append(path: Path, record: Record) -> None:
    """Add a record to a file, which is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(record.document(), ensure_ascii=False) + "\n")


def read(path: Path) -> dict[str, Record]:
    """Return the records of a file by their measurements, in the order of their last ones.

    Raises:
        SystemExit: there is no such file, or it is not of this shape.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as exc:
        raise SystemExit(f"{path}: {exc.strerror}; `python -m benchmarks` writes one") from exc
    found: dict[str, Record] = {}
    for number, line in enumerate(lines, 1):
        try:
            record = Record.of(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise SystemExit(f"{path}:{number}: this is no record of a measurement") from exc
        found.pop(record.measurement, None)
        found[record.measurement] = record
    return found


def keep(records: Iterable[Record], *, folder: Path = HERE) -> None:
    """Let records take the place of those of the same measurement that the source keeps.

    Args:
        records: full ones go where the page comes from, small ones where the guard looks.
        folder: that has both files.
    """
    for small, name in ((False, REFERENCE.name), (True, SMALL.name)):
        path = folder / name
        newer = {each.measurement: each for each in records if each.small == small}
        if not newer:
            continue
        kept = {**(read(path) if path.exists() else {}), **newer}
        path.unlink(missing_ok=True)
        for record in kept.values():
            append(path, record)


def of_question(records: Iterable[Record], question: str) -> list[Record]:
    """Return the records that one file makes."""
    return [record for record in records if record.question == question]


def _run_document(run: Run) -> dict[str, Any]:
    found = {key: value for key, value in asdict(run).items() if value is not None}
    return {key: _short(value) for key, value in found.items()}


def _run_of(document: Mapping[str, Any]) -> Run:
    percentiles = document.get("latencies_ms")
    if percentiles is None:
        return Run(**document)
    return Run(
        **{**document, "latencies_ms": {int(key): value for key, value in percentiles.items()}}
    )


def _short(value: Any) -> Any:
    """Leave out digits that were never measured."""
    if isinstance(value, Mapping):
        return {str(key): _short(each) for key, each in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value
