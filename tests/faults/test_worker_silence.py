"""A worker ends within its grace and a second where RabbitMQ says nothing any more."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from broker.management import Management
from consumers.presence import presences_in
from tests.faults.test_worker_stopped import GRACE_S
from tests.faults.working import QUEUE, Field, check
from tests.processes import children_of, is_alive
from tests.waiting import until


@pytest.fixture
def silent(field: Field) -> Iterator[Field]:
    """A RabbitMQ that can be paused, and goes on after the test."""
    yield field
    field.hurt.go_on()


@pytest.mark.parametrize("worker", ["processes", "threads"])
def test_it_ends_where_rabbitmq_does_not_answer(silent: Field, worker: str) -> None:
    daemon = silent.start(worker)
    silent.publish(2, seconds=60.0)
    until(lambda: len(silent.lines()) == 2, 20, "two jobs to begin")
    children = children_of(daemon.process.pid)
    silent.hurt.pause()
    began = time.monotonic()
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(GRACE_S + 30) == 0, daemon.log
    assert GRACE_S <= time.monotonic() - began <= GRACE_S + 1, daemon.log
    until(lambda: not any(map(is_alive, children)), 5, "its children to be gone")


@pytest.mark.parametrize("worker", ["processes", pytest.param("green", marks=pytest.mark.soak)])
def test_it_waits_until_rabbitmq_has_its_last_acknowledgements(silent: Field, worker: str) -> None:
    daemon = silent.start(worker)
    jobs = set(silent.publish(2, seconds=2.0))
    until(lambda: len(silent.lines()) == 2, 20, "two jobs to begin")
    daemon.process.send_signal(signal.SIGTERM)
    with Management(silent.address) as management:
        # The queue itself goes on to count a consumer that has left while it holds a message.
        until(lambda: not presences_in(management, [QUEUE]), 10, "RabbitMQ to know that it stops")
    silent.hurt.pause()
    silent.wait_done(lambda done: done == jobs)
    # Long after it has written all that it had to say, and might as well be gone.
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.process.wait(2.5)
    silent.hurt.go_on()
    assert daemon.process.wait(GRACE_S + 30) == 0, daemon.log
    assert "by force" not in daemon.log
    ledger = silent.close()
    check(ledger)
    assert ledger.done.keys() == jobs


def test_a_second_signal_ends_it_at_once_and_its_children(silent: Field) -> None:
    daemon = silent.start("processes")
    silent.publish(2, seconds=60.0)
    until(lambda: len(silent.lines()) == 2, 20, "two jobs to begin")
    children = children_of(daemon.process.pid)
    silent.hurt.pause()
    daemon.process.send_signal(signal.SIGTERM)
    until(lambda: "stopping" in daemon.log, 10, "the first signal to count")
    began = time.monotonic()
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(30) == 128 + signal.SIGTERM
    assert time.monotonic() - began < GRACE_S - 1
    until(lambda: not any(map(is_alive, children)), 5, "its children to be gone")
