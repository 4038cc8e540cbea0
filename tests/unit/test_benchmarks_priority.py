"""What the jobs of `benchmarks.priority` tell, and how it is read."""

from __future__ import annotations

import time

import pytest

from benchmarks.ranking import jobs
from benchmarks.ranking.contenders import CELERY, DRAMATIQ
from benchmarks.ranking.jobs import HIGH, LOW, RUN_S, told_in


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(jobs.TOLD, str(tmp_path))
    return tmp_path


def test_a_high_job_tells_how_long_it_waited(folder) -> None:
    before_ns = time.monotonic_ns()
    jobs.run_high(7, before_ns - 5_000_000)
    after_ns = time.monotonic_ns()
    [(number, wait_ns)] = told_in(folder, HIGH)
    assert number == 7
    assert 5_000_000 <= wait_ns <= after_ns - before_ns + 5_000_000


def test_a_low_job_tells_that_it_was_run_when_it_has_held_its_slot(folder) -> None:
    began = time.perf_counter()
    jobs.run_low(3)
    assert time.perf_counter() - began >= RUN_S
    assert told_in(folder, LOW) == [(3, 0)]
    assert told_in(folder, HIGH) == []


def test_what_several_processes_told_is_read_together(folder) -> None:
    (folder / "1").write_text(f"{LOW} 1\n{HIGH} 1 20\n{LOW} 2\n")
    (folder / "2").write_text(f"{LOW} 2\n")
    assert sorted(number for number, _ in told_in(folder, LOW)) == [1, 2, 2]
    assert told_in(folder, HIGH) == [(1, 20)]


@pytest.mark.parametrize("peers", [CELERY, DRAMATIQ])
def test_each_peer_is_measured_on_the_queue_of_its_documentation_and_on_ours(peers) -> None:
    assert {queue_type for queue_type, _ in peers.values()} == {"classic", "quorum"}
