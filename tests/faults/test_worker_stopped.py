"""SIGTERM under a load of 1 ms jobs: in time, exit 0, and nothing finished runs again."""

from __future__ import annotations

import signal
import sys
import time

import pytest

from tests.faults.working import ACCOUNTED, QUEUE, Field, check
from tests.provision import ready_in
from tests.waiting import until

GRACE_S = 5.0
# Jobs for more than what a worker does between its start and its end.
LOAD = 3000
# When the test says so, the signal comes at a moment of a thousand: while the loop holds its lock.
AMIDST_ITS_LOCK = """
import threading
from kombu.asynchronous import hub

class Interrupted:
    def __init__(self):
        self._lock = threading.Lock()

    def __enter__(self):
        self._lock.acquire()
        if threading.current_thread() is threading.main_thread() and os.path.exists("now"):
            os.unlink("now")
            os.kill(os.getpid(), signal.SIGTERM)

    def __exit__(self, *_):
        self._lock.release()

def make(self, *args, __init__=hub.Hub.__init__, **options):
    __init__(self, *args, **options)
    self._ready_lock = Interrupted()

hub.Hub.__init__ = make
"""


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


def test_a_signal_may_come_at_any_moment(field: Field) -> None:
    (field.folder / "accounted.py").write_text(ACCOUNTED + AMIDST_ITS_LOCK)
    daemon = field.start("processes")
    jobs = set(field.publish(2, seconds=1.0))
    until(lambda: len(field.lines()) == 2, 20, "two jobs to begin")
    (field.folder / "now").touch()
    assert daemon.process.wait(GRACE_S + 30) == 0, daemon.log
    assert "by force" not in daemon.log
    ledger = field.close()
    check(ledger)
    assert ledger.done.keys() == jobs
