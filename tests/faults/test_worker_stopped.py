"""SIGTERM under a load of 1 ms jobs: in time, exit 0, and nothing finished runs again."""

from __future__ import annotations

import signal
import sys
import time

import pytest

from tests.faults.working import QUEUE, Field, check
from tests.provision import ready_in
from tests.waiting import until

GRACE_S = 5.0
# Jobs for more than what a worker does between its start and its end.
LOAD = 3000


def stop_again_and_again(field: Field, worker: str, times: int) -> list[float]:
    """Start a worker and end it under load, so many times; return the seconds of each end."""
    seconds = []
    for number in range(times):
        lacking = LOAD - ready_in(field.address, QUEUE)
        if lacking > 0:
            field.publish(lacking, seconds=0.001)
        before = len(field.lines())
        daemon = field.start(worker)
        until(lambda before=before: len(field.lines()) > before + 200, 40, "the load")
        began = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        code = daemon.process.wait(GRACE_S + 30)
        seconds.append(time.monotonic() - began)
        assert code == 0, f"end {number}: {daemon.log[-3000:]}"
        assert seconds[-1] <= GRACE_S + 1, f"end {number}: {seconds[-1]:.1f} s"
        assert ready_in(field.address, QUEUE), "no load was left"
    # What is done came once, by whichever worker, and what was returned was not counted.
    ledger = field.close()
    check(ledger)
    assert not ledger.counted
    assert ledger.waiting
    sys.stdout.write(f"\n{worker}: slowest end {max(seconds):.2f} s of {times}\n")
    return seconds


@pytest.mark.parametrize("worker", ["processes", pytest.param("threads", marks=pytest.mark.soak)])
def test_workers_end_in_time_and_nothing_finished_runs_again(field: Field, worker: str) -> None:
    stop_again_and_again(field, worker, 5)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("worker", ["processes", "threads"])
def test_fifty_ends_in_time_and_nothing_finished_runs_again(field: Field, worker: str) -> None:
    stop_again_and_again(field, worker, 50)
