"""Plain Celery when its connection goes, when it is told to stop, and when it is watched."""

from __future__ import annotations

import signal
import sys
import threading
import time
from functools import partial

import pytest

from tests.faults.working import check
from tests.peers.forgetful import Forgetful
from tests.peers.plain import LATE, QUEUE, QUORUM, Plain
from tests.provision import ready_in
from tests.waiting import until

pytestmark = pytest.mark.soak

LOCKED = "RESOURCE_LOCKED"
# What Kubernetes waits before it kills, and how many ends are tried until one takes longer.
PATIENCE_S, WORKERS, ROUNDS = 30.0, 3, 3
LOAD = 6000


def test_a_connection_that_the_network_forgot_ends_the_worker(plain: Plain) -> None:
    with Forgetful(plain.address) as network:
        daemon = plain.worker("-c", "1", address=network.address)
        network.forget()
        until(lambda: daemon.process.poll() is not None, 60, "its end")
    assert daemon.process.returncode == 1
    # By the worker itself, on the connection that RabbitMQ takes for alive.
    assert LOCKED in daemon.log


def test_a_second_worker_of_the_same_name_exits(plain: Plain) -> None:
    first = plain.worker("-c", "1", "--hostname", "same@here")
    second = plain.spawn("worker", "--loglevel", "INFO", "-c", "1", "--hostname", "same@here")
    until(lambda: second.process.poll() is not None, 60, "its end")
    assert second.process.returncode != 0
    assert LOCKED in second.log
    assert first.process.poll() is None


@pytest.mark.timeout(300)
def test_sigterm_takes_half_a_minute_and_finished_tasks_run_again(plain: Plain) -> None:
    settings = {**QUORUM, **LATE}
    plain.declare(QUEUE, queue_type="quorum")
    seconds: list[float] = []
    ledger = plain.ledger()
    for number in range(ROUNDS):
        daemons = [
            plain.worker("-c", "2", "--hostname", f"{number}-{each}@here", settings=settings)
            for each in range(WORKERS)
        ]
        before = len(plain.lines())
        # Workers may be as quick as who sends: the load is what is still being sent.
        sending = threading.Thread(
            target=partial(plain.send, "work", 0.001, count=LOAD, settings=QUORUM)
        )
        sending.start()
        until(lambda before=before: len(plain.lines()) > before + 200, 60, "the load")
        began = time.monotonic()
        for daemon in daemons:
            daemon.process.send_signal(signal.SIGTERM)
        assert sending.is_alive(), "no load was left"
        for daemon in daemons:
            daemon.process.wait(PATIENCE_S + 30)
            seconds.append(time.monotonic() - began)
        sending.join()
        until(lambda: not plain.consumers(), 20, "all to be given back")
        ledger = plain.ledger()
        sys.stdout.write(f"ends after {seconds}; {ledger.summary()}\n")
        if max(seconds) > PATIENCE_S and ledger.again:
            break
    assert max(seconds) > PATIENCE_S
    with pytest.raises(AssertionError, match="came once more, not 0 at most"):
        check(ledger)


def test_remote_control_ends_a_worker_that_may_configure_its_queue_alone(plain: Plain) -> None:
    with plain.user(configure=f"^{QUEUE}$", write=".*", read=".*") as address:
        daemon = plain.spawn("worker", "--loglevel", "INFO", "-c", "1", address=address)
        until(lambda: daemon.process.poll() is not None, 60, "its end")
    assert daemon.process.returncode != 0
    assert "ACCESS_REFUSED" in daemon.log
    assert "pidbox" in daemon.log


def test_replies_want_the_right_to_write_to_any_queue(plain: Plain) -> None:
    settings = {"result_backend": "rpc://"}
    with plain.user(configure=".*", write=r"^(?!amq\.default$)", read=".*") as address:
        daemon = plain.worker("-c", "1", settings=settings, address=address)
        with plain.client(settings) as client:
            first = client.send_task("work")
            until(lambda: first.id in plain.done(), 30, "the task to run")
            # RabbitMQ's answer is not read before the next reply.
            client.send_task("work")
            until(lambda: "write access to exchange 'amq.default'" in daemon.log, 30, "the refusal")
            queue = client.thread_oid
    assert ready_in(plain.address, queue) == 0


def test_a_busy_solo_worker_reads_as_dead_and_a_ping_takes_a_second(plain: Plain) -> None:
    plain.worker("-c", "1", "--pool", "solo")
    with plain.client() as client:
        began = time.monotonic()
        assert client.control.inspect().ping()
        assert time.monotonic() - began >= 1
        client.send_task("work", (20,))
        until(plain.lines, 30, "it to be busy")
        assert client.control.inspect().ping() is None
    assert not plain.done()
