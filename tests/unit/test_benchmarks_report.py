"""Results files, the page that is made of one, and the questions that it asks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.method import charts, results
from benchmarks.method.command import QUESTIONS
from benchmarks.method.results import Record
from benchmarks.method.rounds import Run

ROOT = Path(__file__).resolve().parents[2]
PEERS = ("aio_pika", "dramatiq", "faststream", "taskiq", "taskiq_aio_pika")
RECORD = Record(
    measurement="topology.apply",
    title="5,000 objects from nothing",
    unit="ms",
    better="less",
    each="object",
    first="rabbitry apply",
    at="2026-11-21T19:00:00+00:00",
    runs={
        "rabbitry apply": [
            Run(value=1_100.0 + at, jobs=5_000, client_s=0.5, broker_s=1.0) for at in range(3)
        ],
        "one import": [
            Run(value=1_000.0, jobs=5_000, client_s=0.1, latencies_ms={50: 1.5, 99: 2.5})
            for at in range(3)
        ],
    },
    missing={"one by one": "left out"},
    notes={"objects": 5_000},
    machine={"cores": 2, "memory_mib": 4_096},
    rabbitmq={"version": "4.3.6", "plugins": ["rabbitmq_management"]},
    versions={"celery": "5.7.0"},
    load={"before": 0.5, "after": 1.5},
)


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "results.jsonl"
    results.append(path, RECORD)
    assert results.read(path) == {"topology.apply": RECORD}


def test_of_several_records_of_a_measurement_the_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    for title in ("first", "second"):
        results.append(path, Record.of({**RECORD.document(), "title": title}))
    assert results.read(path)["topology.apply"].title == "second"


@pytest.mark.parametrize("line", ["{", "[]", '{"measurement": "x"}', '{"runs": {"a": [{}]}}'])
def test_a_file_of_something_else_is_refused_with_the_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(SystemExit, match=r"results\.jsonl:1: this is no record"):
        results.read(path)


def test_a_missing_file_is_told_with_what_writes_one(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="`python -m benchmarks` writes one"):
        results.read(tmp_path / "none.jsonl")


def test_the_page_has_the_figures_of_the_file_and_the_words_of_the_question() -> None:
    from benchmarks import topology

    page = report.page({RECORD.measurement: RECORD}, source="results.jsonl")
    assert topology.ASKS in page
    assert topology.MEANING.strip() in page
    assert "| **rabbitry apply** | 1,101 | 1,100 | 1,102 | 1.00 | - | - | 100 | 200 |" in page
    assert "| one import | 1,000 | 1,000 | 1,000 | 1.10 | 1.50 | 2.50 | 20.0 | - |" in page
    assert "| rabbitry apply | one import | at most 1.3 | 1.10 | 1.10 to 1.10 | reached |" in page
    assert "Not measured: one by one (left out)." in page
    assert "cores 2; memory 4,096 MiB" in page


def test_a_picture_knows_the_records_that_it_shows(tmp_path: Path) -> None:
    path = tmp_path / "benchmark-topology.svg"
    assert not charts.shows(path, [RECORD])
    charts.draw(path, [RECORD])
    assert charts.shows(path, [RECORD])
    again = path.read_text()
    charts.draw(path, [RECORD])
    assert path.read_text() == again
    other = Record.of({**RECORD.document(), "runs": {"rabbitry apply": [{"value": 1.0}]}})
    assert not charts.shows(path, [other])


def test_every_question_can_be_read_without_any_peer() -> None:
    script = f"""
import sys
for peer in {PEERS!r}:
    sys.modules[peer] = None
from importlib import import_module
for name in {QUESTIONS!r}:
    module = import_module(f"benchmarks.{{name}}")
    assert module.ASKS.endswith("?") and module.MEANING.strip() and callable(module.ask), name
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_contenders_that_are_measured_in_several_places_become_curves(tmp_path: Path) -> None:
    path = tmp_path / "benchmark-scale.svg"
    runs = {
        f"{who}: {count} workers": [{"value": count * 1_000.0}]
        for who in ("rabbitry", "Celery")
        for count in (1, 2, 4)
    }
    first = "rabbitry: 1 workers"
    charts.draw(path, [Record.of({**RECORD.document(), "runs": runs, "first": first})])
    text = path.read_text()
    assert text.count(">Celery</text>") == 1, "in the legend, and not once a place"
    assert text.count(">4 workers</text>") == 1


@pytest.mark.parametrize(("most", "shown"), [(2_000.0, ">0</text>"), (2_000_000.0, ">1,000,000<")])
def test_curves_that_lie_far_apart_are_on_a_logarithmic_scale(
    tmp_path: Path, most: float, shown: str
) -> None:
    path = tmp_path / "benchmark-scale.svg"
    values = {"100 B": most, "1 MB": 1_500.0, "8 MB": 1_000.0}
    runs = {f"rabbitry: {size}": [{"value": value}] for size, value in values.items()}
    first = "rabbitry: 100 B"
    charts.draw(path, [Record.of({**RECORD.document(), "runs": runs, "first": first})])
    text = path.read_text()
    assert shown in text
    assert (">0</text>" in text) == (most < 50_000), "a logarithmic scale has no zero"


def test_what_is_kept_gives_way_to_what_was_measured_later_each_size_by_itself(
    tmp_path: Path,
) -> None:
    def record(measurement: str, title: str, small: bool = False) -> Record:
        fields = {"measurement": measurement, "title": title, "small": small}
        return Record.of({**RECORD.document(), **fields})

    results.keep([record("topology.100", "old"), record("topology.apply", "old")], folder=tmp_path)
    results.keep([record("topology.apply", "new"), record("publish", "", True)], folder=tmp_path)
    found = results.read(tmp_path / "reference.jsonl")
    assert {name: each.title for name, each in found.items()} == {
        "topology.100": "old",
        "topology.apply": "new",
    }
    assert list(results.read(tmp_path / "small.jsonl")) == ["publish"]


def test_the_page_and_its_pictures_are_what_the_kept_results_give() -> None:
    assert report.PAGE.read_text() == report.kept(), "run `make bench-report`"
    for path, records in report.pictures(results.read(results.REFERENCE)):
        assert charts.shows(path, records), f"{path.name} is out of date: run `make bench-report`"
