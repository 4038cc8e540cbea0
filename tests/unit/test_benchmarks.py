"""The arithmetic of the benchmarks: rounds, ratios, ledger, bars, guard."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.method import guard
from benchmarks.method.bars import BARS, SLACK, Bar
from benchmarks.method.command import QUESTIONS
from benchmarks.method.ledger import Ledger, tally
from benchmarks.method.processor import Meter
from benchmarks.method.results import Record
from benchmarks.method.rounds import Run, latencies, measure, ratio, ratios

ROOT = Path(__file__).resolve().parents[2]
AT_LEAST = Bar(measurement="publish", first="ours", other="theirs", ratio=4)
AT_MOST = Bar(measurement="call", first="ours", other="theirs", ratio=1.5, at="most")


def runs(*values: float) -> list[Run]:
    return [Run(value=value) for value in values]


def record(measurement: str, ours: float, theirs: float) -> Record:
    return Record(
        measurement=measurement,
        title="jobs",
        unit="jobs/s",
        first="ours",
        runs={"ours": runs(ours, ours), "theirs": runs(theirs, theirs)},
    )


def record_of_apply() -> Record:
    """Return a record in which the ratio of the bar has fallen."""
    return Record(
        measurement="topology.apply",
        title="objects",
        unit="ms",
        better="less",
        first="rabbitry apply",
        runs={"rabbitry apply": runs(9, 9), "one import": runs(1, 1)},
    )


def test_each_contender_runs_once_a_round_and_the_warm_up_does_not_count() -> None:
    order: list[str] = []

    def contender(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = measure({name: lambda name=name: contender(name) for name in "abc"}, rounds=2)
    rounds = [order[at : at + 3] for at in range(0, len(order), 3)]
    assert [sorted(each) for each in rounds] == [["a", "b", "c"]] * 3
    assert len({tuple(each) for each in rounds}) == 3, "each round begins with another one"
    assert {name: len(each) for name, each in found.items()} == {"a": 2, "b": 2, "c": 2}
    assert all(run.value > 3 for each in found.values() for run in each)


def test_ratios_are_those_of_the_pairs_and_not_of_the_medians() -> None:
    first, other = runs(10, 100, 1_000), runs(1, 50, 2_000)
    assert ratios(first, other) == [10, 2, 0.5]
    assert ratio(first, other) == 2
    with pytest.raises(ValueError, match="shorter"):
        ratios(first, other[:2])


def test_processor_time_is_told_for_one_job_where_it_is_known() -> None:
    run = Run(value=1.0, jobs=2_000, client_s=0.5, broker_s=None)
    assert (run.client_us, run.broker_us) == (250.0, None)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_percentiles_are_numpys_in_milliseconds(seconds: list[float]) -> None:
    found = latencies(seconds)
    assert found[100] == pytest.approx(1e3 * max(seconds))
    assert found[50] == pytest.approx(1e3 * float(np.median(seconds)))
    assert sorted(found.values()) == list(found.values())


@pytest.mark.parametrize(
    "ledger",
    [
        Ledger(published=10, done=9),
        Ledger(published=10, done=9, waiting=1),
        Ledger(published=10, done=9, dead=1),
        Ledger(published=10, done=10, twice=1),
        Ledger(published=10, done=11),
        Ledger(published=10, done=10, waiting=1),
    ],
)
def test_a_contender_whose_messages_are_not_all_done_once_does_not_count(ledger: Ledger) -> None:
    with pytest.raises(SystemExit, match="the fast one does not count: of 10 messages"):
        ledger.check("the fast one")


def test_a_publisher_is_asked_for_messages_that_wait() -> None:
    Ledger(published=10, waiting=10).check("a publisher", all_are="waiting")
    Ledger(published=10, done=10).check("a worker")
    with pytest.raises(SystemExit, match="1 are missing"):
        Ledger(published=10, waiting=9).check("a publisher", all_are="waiting")


def test_jobs_that_were_seen_again_are_told_apart() -> None:
    assert tally(["a", "b", "a", "a"]) == (2, 2)


def test_a_bar_takes_the_best_of_several_and_a_ratio_the_other_way_round() -> None:
    several = Bar(measurement="call", first=("a", "b"), other="c", ratio=4)
    found = {"a": runs(10, 10), "b": runs(40, 60), "c": runs(10, 10)}
    assert several.measured(found, "more") == 5
    assert several.measured(found, "less") == 1
    faster = Bar(measurement="arrays", first="a", other="b", ratio=4, times_as_fast=True)
    assert faster.measured(found, "less") == 5
    assert several.measured({"a": runs(1)}, "more") is None
    assert several.verdict(None) == "NOT MEASURED, at least 4"


def test_bars_are_of_both_directions() -> None:
    assert AT_LEAST.reached(4.0)
    assert not AT_LEAST.reached(3.9)
    assert AT_MOST.reached(1.5)
    assert not AT_MOST.reached(1.6)
    assert AT_MOST.verdict(1.6) == "FAIL, 1.60, at most 1.5"


@given(st.floats(0.1, 100), st.floats(0.1, 100))
def test_a_ratio_has_fallen_where_it_is_worse_by_a_quarter_than_before_and_than_the_bar(
    now: float, before: float
) -> None:
    worse = now < (1 - SLACK) * before and now < (1 - SLACK) * AT_LEAST.ratio
    assert AT_LEAST.fallen(now, before) == worse
    slower = now * (1 - SLACK) > before and now * (1 - SLACK) > AT_MOST.ratio
    assert AT_MOST.fallen(now, before) == pytest.approx(slower)
    assert AT_LEAST.fallen(now, None) == (now < (1 - SLACK) * AT_LEAST.ratio)


def test_the_guard_finds_what_fell_and_lets_pass_what_was_not_measured() -> None:
    bars = [AT_LEAST, AT_MOST, Bar(measurement="scale", first="ours", other="theirs", ratio=1)]
    before = {"publish": record("publish", 5, 1), "call": record("call", 1, 1)}
    now = [record("publish", 2.9, 1), record("call", 1.9, 1)]
    found = guard.compare(now, before, bars=bars)
    assert [each.word for each in found] == ["FALLEN", "HOLDS", "NOT MEASURED"]
    assert [each.fallen for each in found] == [True, False, False]


def test_every_bar_has_a_question_that_is_asked() -> None:
    assert {bar.question for bar in BARS} <= set(QUESTIONS)
    assert len({bar.name for bar in BARS}) == len(BARS)


@pytest.mark.parametrize(
    ("ask", "code", "printed"),
    [
        ("signal.pause()", 0, "NOT MEASURED"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 128 + signal.SIGTERM, "NOT MEASURED"),
        ("bench.records.append(record)", 1, "FALLEN"),
        ("sys.exit('a message is missing')", 1, "a message is missing"),
        ("1 / 0", 1, "ZeroDivisionError"),
    ],
)
def test_what_was_measured_is_compared_however_a_question_ends(
    tmp_path: Path, ask: str, code: int, printed: str
) -> None:
    script = f"""
import os, signal, sys
from contextlib import nullcontext
from types import SimpleNamespace
from benchmarks.method import command
from tests.unit.test_benchmarks import record_of_apply
record = record_of_apply()
def ask(bench):
    {ask}
command.running = lambda: nullcontext(None)
command.import_module = lambda name: SimpleNamespace(ask=ask)
within = "0.5" if {ask == "signal.pause()"} else "30"
given = ["topology", "--check", "--within", within, "--results", {str(tmp_path / "r.jsonl")!r}]
sys.exit(command.run(given))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert printed in done.stdout + done.stderr
    assert "rabbitry apply : one import" in done.stdout


def test_a_meter_counts_a_process_with_its_children_also_those_that_ended() -> None:
    burn = "import time\nwhile time.process_time() < {}: pass\n"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn.format(0.3)!r}])"
    meter = Meter(None)
    with meter:
        subprocess.run([sys.executable, "-c", child], check=True)
    assert meter.client_s >= 0.3
    assert meter.seconds > 0
    assert meter.broker_s is None
    assert meter.resident_mib > 1
