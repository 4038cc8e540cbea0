"""The pool of processes by itself: its inbox, those that die with a job in hand, time limits."""

from __future__ import annotations

import gc
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from kombu.asynchronous import Hub
from kombu.asynchronous.semaphore import LaxBoundedSemaphore

from consumers.pool.pool import JobPool
from tests.waiting import until


def echo(value: Any) -> Any:
    return value


def hold(folder: Path) -> int:
    (folder / str(os.getpid())).touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    return os.getpid()


def outlive(folder: Path) -> str:
    try:
        hold(folder)
    except SoftTimeLimitExceeded:
        return "told"
    return "not told"


def collect() -> int:
    """Return how many bytes this process no longer shares, for having collected garbage."""
    before = unshared_bytes()
    gc.collect()
    return unshared_bytes() - before


def unshared_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private"))


class Turning:
    """A pool and the event loop that turns for it."""

    def __init__(self, processes: int) -> None:
        self.hub = Hub()
        self.pool = JobPool(
            processes,
            threads=False,
            enable_timeouts=True,
            semaphore=LaxBoundedSemaphore(100),
            lost_worker_timeout=0.1,
        )
        self.pool.register_with_event_loop(self.hub)
        self.done: list[Any] = []
        self.failed: list[Any] = []

    def run(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return self.pool.apply_async(
            function,
            args,
            callback=self.done.append,
            error_callback=lambda info: self.failed.append(type(info.exception.exc).__name__),
            **options,
        )

    def until(self, condition: Callable[[], Any], what: str) -> None:
        def turned() -> Any:
            self.hub.call_later(0.01, bool)
            self.hub.run_once()
            return condition()

        until(turned, timeout_s=30, what=what)

    def end(self) -> None:
        for process in self.pool._pool:
            os.kill(process.pid, signal.SIGKILL)
        self.pool.terminate()
        self.hub.close()


@pytest.fixture
def turning() -> Iterator[Callable[[int], Turning]]:
    made: list[Turning] = []

    def make(processes: int) -> Turning:
        made.append(Turning(processes))
        return made[-1]

    yield make
    for each in made:
        each.end()


def test_results_of_any_size_come_back(turning) -> None:
    pool = turning(2)
    values = [b"x" * size for size in (0, 10, 5_000, 70_000, 3_000_000)]
    for value in values:
        pool.run(echo, value)
    pool.until(lambda: len(pool.done) == len(values), "all results")
    assert sorted(pool.done) == sorted(values)
    assert pool.failed == []


def test_what_a_process_took_and_never_told_of_goes_to_another(turning, tmp_path) -> None:
    pool = turning(1)
    pool.run(hold, tmp_path)
    pool.until(lambda: list(tmp_path.iterdir()), "it to run")
    for value in range(3):
        pool.run(echo, value)
    # As a process does that dies before it says so.
    assert pool.pool._inbox.take(wait=False) is not None
    pool.run(echo, 3)
    os.kill(pool.pool._pool[0].pid, signal.SIGKILL)
    pool.until(lambda: len(pool.done) == 4 and pool.failed, "the rest to be run by the next")
    assert sorted(pool.done) == [0, 1, 2, 3]
    # The one that was being run is the worker's to judge.
    assert pool.failed == ["WorkerLostError"]


def test_what_has_not_begun_is_taken_back_and_nothing_else(turning, tmp_path) -> None:
    pool = turning(2)
    for _ in range(2):
        pool.run(hold, tmp_path)
    pool.until(lambda: len(list(tmp_path.iterdir())) == 2, "both to run")
    for value in range(200):
        pool.run(echo, b"x" * 4_000 + bytes([value]))
    assert len(pool.pool.recall()) == 200
    (tmp_path / "go").touch()
    pool.until(lambda: len(pool.done) == 2, "what ran to end")
    pool.run(echo, "next")
    pool.until(lambda: len(pool.done) == 3, "the next")
    assert pool.done[-1] == "next"


def test_a_hard_limit_ends_the_process_and_a_soft_one_tells_it(turning, tmp_path) -> None:
    pool = turning(2)
    began = time.monotonic()
    pool.run(outlive, tmp_path, soft_timeout=0.3, timeout=20)
    pool.run(hold, tmp_path, timeout=0.6)
    pool.until(lambda: pool.done and pool.failed, "both to be over")
    assert 0.6 <= time.monotonic() - began < 10
    assert pool.done == ["told"]
    assert pool.failed == ["TimeLimitExceeded"]
    pool.run(echo, "next")
    pool.until(lambda: len(pool.done) == 2, "the next")
    assert pool.pool._limited == {}


def test_what_ended_in_time_is_done_however_late_the_pool_looks(turning, tmp_path) -> None:
    pool = turning(1)
    pool.run(hold, tmp_path, timeout=1.0)
    pool.until(lambda: pool.pool._limited, "it to run")
    (job,) = pool.pool._limited.values()
    (tmp_path / "go").touch()
    # The loop does not turn meanwhile, as where another callback takes its time.
    (process,) = pool.pool._pool
    select.select([process.outq._reader], [], [], 30)
    until(lambda: time.monotonic() - job._time_accepted > 1.2, timeout_s=30, what="the limit")
    pool.pool._check_limits()
    assert (pool.done, pool.failed) == ([process.pid], [])
    assert process.is_alive()


def test_collecting_garbage_leaves_the_memory_shared_that_a_process_began_with(turning) -> None:
    # Some 30 MB that a collector would write to.
    of_the_worker = [[each] for each in range(300_000)]
    pool = turning(1)
    pool.run(collect)
    pool.until(lambda: pool.done, "the memory")
    assert pool.done[0] < 3_000_000
    assert len(of_the_worker) == 300_000
