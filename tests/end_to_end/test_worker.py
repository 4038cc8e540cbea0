"""Daemons run jobs, return what fails to RabbitMQ, and lose nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from broker.errors import RemoteError
from producers.caller import Caller, Job
from producers.publisher import Publisher
from tests.end_to_end.conftest import Daemon
from tests.probes import ANYWHERE, Probe
from tests.provision import consumers_of, ready_in
from tests.waiting import until

RUN = (sys.executable, "-m", "rabbitry", "worker", "run", "--health", ANYWHERE)


def until_begun(worker: Daemon, count: int) -> None:
    """Wait until so many jobs run; what was only received goes back when the worker stops."""
    probe = Probe.of_log(lambda: worker.log)
    until(lambda: probe.worker("running") == {(): count}, timeout_s=20, what="jobs to begin")


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in text.split()]


def plain_celery(env: dict[str, str], expression: str) -> str:
    """Evaluate an expression in a plain Celery client, a process of its own."""
    program = (
        "import os, celery\n"
        "app = celery.Celery('plain', broker=os.environ['RABBITRY_URL'], backend='rpc://')\n"
        "send = app.send_task\n"
        f"print({expression})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_jobs_are_run_and_calls_answered(provisioned, worker) -> None:
    with Caller(provisioned.topology, provisioned.url) as caller:
        assert caller.call("demo.add", 1, 41, timeout_s=20) == 42
        call = caller.submit("demo.sleep", seconds=0.2, timeout_s=20)
        call.result()
        assert call.timing.ran_s >= 0.2
        assert 0 <= call.timing.waited_s < 10
        assert call.timing.worker.startswith("normal@")
        results = list(caller.map("demo.echo", range(200), timeout_s=20))
    assert results == list(range(200))
    assert worker.stop() == 0
    assert ready_in(provisioned.address, "jobs.normal") == 0


def test_a_failing_call_is_answered_with_the_error(provisioned, worker) -> None:
    with Caller(provisioned.topology, provisioned.url) as caller:
        with pytest.raises(RemoteError, match="DemoFailure: no luck") as caught:
            caller.call("demo.fail", message="no luck", timeout_s=20)
        assert "in fail" in caught.value.remote_traceback
        with pytest.raises(RemoteError, match="'a'"):
            caller.call("demo.add", "x", 1, timeout_s=20)
        assert caller.call("demo.add", 1, 2, timeout_s=20) == 3


def test_a_failing_job_is_retried_by_rabbitmq_and_dead_lettered_past_the_limit(
    provisioned, worker
) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("demo.fail", id="lost-cause").wait()
    until(
        lambda: ready_in(provisioned.address, "jobs.dead") == 1,
        timeout_s=20,
        what="the dead letter",
    )
    attempts = [line for line in worker.log.splitlines() if "failed in attempt" in line]
    # limit: 2 is two redeliveries, so three attempts.
    assert [line.split("attempt ")[1][0] for line in attempts] == ["1", "2", "3"]
    assert ready_in(provisioned.address, "jobs.normal") == 0


def test_a_job_whose_arguments_never_fit_is_dead_lettered_at_once(provisioned, worker) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("demo.add", "x", 1).wait()
    until(
        lambda: ready_in(provisioned.address, "jobs.dead") == 1,
        timeout_s=20,
        what="the dead letter",
    )
    assert worker.log.count("given up") == 1


def test_a_job_past_its_deadline_is_not_begun(provisioned, start) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish(Job("demo.echo", ("late",), deadline_s=0.001)).wait()
    daemon = start(sys.executable, "-m", "rabbitry", "worker", "run", "normal")
    until(
        lambda: ready_in(provisioned.address, "jobs.dead") == 1,
        timeout_s=20,
        what="the dead letter",
    )
    assert "its deadline passed" in daemon.log


def test_jobs_of_a_killed_child_and_of_a_killed_worker_are_run_again(provisioned, start) -> None:
    """The ledger: published = done + waiting + dead-lettered, over two kill -9."""
    count = 40
    first = start(sys.executable, "-m", "rabbitry", "worker", "run", "normal")
    with Caller(provisioned.topology, provisioned.url) as caller:
        calls = [caller.submit("demo.sleep", seconds=0.1, timeout_s=60) for _ in range(count)]
        until(lambda: sum(call.done() for call in calls) >= 4, timeout_s=30, what="four replies")
        os.kill(children_of(first.process.pid)[-1], signal.SIGKILL)
        until(lambda: sum(call.done() for call in calls) >= 10, timeout_s=30, what="ten replies")
        os.killpg(first.process.pid, signal.SIGKILL)
        first.process.wait()
        start(sys.executable, "-m", "rabbitry", "worker", "run", "normal")
        outcomes: Counter[str] = Counter()
        for call in calls:
            error = call.exception(timeout=60)
            outcomes["done" if error is None else type(error).__name__] += 1
    waiting = ready_in(provisioned.address, "jobs.normal")
    dead = ready_in(provisioned.address, "jobs.dead")
    assert outcomes == {"done": count}
    assert (waiting, dead) == (0, 0)


def test_sigterm_finishes_what_runs_and_leaves_the_rest(provisioned, start) -> None:
    worker = start(*RUN, "normal")
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        receipts = [publisher.publish("demo.sleep", seconds=1.0) for _ in range(10)]
        for receipt in receipts:
            receipt.wait()
    until_begun(worker, 2)
    started = time.monotonic()
    assert worker.stop(timeout_s=40) == 0
    # A plain Celery worker takes half a minute here, and what it finished meanwhile runs again.
    assert time.monotonic() - started < 15
    done = worker.log.count("succeeded in")
    assert done >= 2
    assert ready_in(provisioned.address, "jobs.normal") == 10 - done


def test_what_outlasts_the_grace_goes_back_to_rabbitmq(provisioned, start) -> None:
    text = provisioned.path.read_text()
    provisioned.path.write_text(
        text + "  hasty: {queues: [jobs.normal], concurrency: 1, grace: 1s}\n"
    )
    daemon = start(*RUN, "hasty")
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("demo.sleep", seconds=60.0).wait()
    until_begun(daemon, 1)
    started = time.monotonic()
    assert daemon.stop(timeout_s=40) == 0
    assert 1 <= time.monotonic() - started < 15
    until(
        # Set aside for the retry delay before it is ready again.
        lambda: ready_in(provisioned.address, "jobs.normal") == 1,
        timeout_s=20,
        what="the job to be back",
    )


def test_a_second_signal_ends_at_once(provisioned, start) -> None:
    worker = start(*RUN, "normal")
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("demo.sleep", seconds=60.0).wait()
    until_begun(worker, 1)
    worker.process.send_signal(signal.SIGTERM)
    until(lambda: "stopping" in worker.log, timeout_s=10, what="the first signal to count")
    started = time.monotonic()
    worker.stop(timeout_s=40)
    assert time.monotonic() - started < 10
    until(
        lambda: ready_in(provisioned.address, "jobs.normal") == 1,
        timeout_s=20,
        what="the job to be back",
    )


def test_a_worker_holds_no_more_than_it_has_slots(provisioned, worker) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        for _ in range(6):
            publisher.publish("demo.sleep", seconds=3.0).wait()
    until(lambda: worker.log.count("received") == 2, timeout_s=20, what="two jobs to start")
    assert ready_in(provisioned.address, "jobs.normal") == 4


def test_plain_celery_clients_and_workers_can_take_part(provisioned, start, env) -> None:
    start(
        *(sys.executable, "-m", "celery", "-A", "consumers.app", "worker"),
        *("-Q", "jobs.normal", "-c", "2", "--loglevel=INFO"),
    )
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("demo.add", 1, 2, id="from-publisher").wait()
    with Caller(provisioned.topology, provisioned.url) as caller:
        assert caller.call("demo.add", 3, 4, timeout_s=20) == 7
    assert plain_celery(env, 'send("demo.add", (1, 2), queue="jobs.normal").get(timeout=20)') == "3"
    until(
        lambda: ready_in(provisioned.address, "jobs.normal") == 0,
        timeout_s=10,
        what="an empty queue",
    )


def test_a_plain_celery_client_reaches_our_worker_and_gets_its_reply(env, worker) -> None:
    assert plain_celery(env, 'send("demo.add", (1, 2), queue="jobs.normal").get(timeout=20)') == "3"


def test_all_workers_run_side_by_side_and_stop_together(provisioned, start, env) -> None:
    text = provisioned.path.read_text()
    provisioned.path.write_text(text + "  dead: {queues: [jobs.tiny], concurrency: 1}\n")
    daemon = start(sys.executable, "-m", "rabbitry", "worker", "run", "--all")
    until(
        lambda: consumers_of(provisioned.address, "jobs.tiny") == 1,
        timeout_s=20,
        what="the second worker",
    )
    assert len(children_of(daemon.process.pid)) == 2
    assert daemon.stop() == 0
    assert consumers_of(provisioned.address, "jobs.normal") == 0
