"""Which job a worker takes next, from one queue and from several."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.connection import connect
from broker.management import Management
from producers.publisher import Job, Publisher
from tests.end_to_end.conftest import Daemon, Start
from tests.integration.conftest import Provisioned
from tests.provision import provision, ready_in, topology_of
from tests.waiting import until

FILE = """
version: 1
name: ranks
vhost: {name: unused, default_queue_type: quorum}
exchanges: {jobs: {type: topic}, dead: {type: fanout}}
queues:
  jobs.one: &queue
    bindings: [{exchange: jobs, routing_key: one}]
    retry: {delay: 100ms, limit: 5}
    dead_letter: {exchange: dead}
  jobs.high: {<<: *queue, bindings: [{exchange: jobs, routing_key: high}]}
  jobs.low: {<<: *queue, bindings: [{exchange: jobs, routing_key: low}]}
  dead: {bindings: [{exchange: dead}]}
jobs:
  gated: {task: "ranks:gated", exchange: jobs, routing_key: one}
  flaky: {task: "ranks:flaky", exchange: jobs, routing_key: one}
  high: {task: "ranks:high", exchange: jobs, routing_key: high}
  low: {task: "ranks:low", exchange: jobs, routing_key: low}
workers:
  one: {queues: [jobs.one], concurrency: 1}
  two: {queues: [jobs.one], concurrency: 2}
  hoarder: {queues: [jobs.one], concurrency: 2, prefetch: 8}
  both: {queues: [jobs.high, jobs.low], concurrency: 4, weights: {jobs.high: 3}, pool: threads}
  kind:
    queues: [jobs.high, jobs.low, jobs.one]
    concurrency: 8
    weights: {jobs.high: 20}
    starvation: 50%
"""
TASKS = """
import os
import time
from consumers.job import current_job, job


def tell(text):
    # One write of a short line: they come in whole, and in order, from all processes.
    with open("told", "a") as file:
        file.write(text + "\\n")


@job("gated")
def gated(label: str):
    tell(f"began {label}")
    with open("gate", "rb", buffering=0) as gate:
        gate.read(1)
    tell(f"done {label}")


@job("flaky")
def flaky():
    attempt = current_job().attempt
    tell(f"began flaky {attempt}")
    if attempt == 1:
        raise RuntimeError("once")


@job("high")
def high():
    tell("high")
    time.sleep(0.01)


@job("low")
def low():
    tell("low")
    time.sleep(0.01)
"""
LOW, HIGH = 0, 31


class Stage:
    """What tasks tell, and the gate at which they wait: each byte lets one of them through."""

    def __init__(self, folder: Path) -> None:
        self._told = folder / "told"
        self._told.touch()
        os.mkfifo(folder / "gate")
        # Held open by both ends: tasks may come and go.
        self._gate = os.open(folder / "gate", os.O_RDWR)

    def told(self) -> list[str]:
        return self._told.read_text().splitlines()

    def began(self) -> list[str]:
        return [line.removeprefix("began ") for line in self.told() if line.startswith("began ")]

    def let_one_through(self) -> None:
        os.write(self._gate, b".")

    def close(self) -> None:
        os.close(self._gate)


@pytest.fixture
def provisioned(rabbitmq, vhost, tmp_path, monkeypatch) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    (Path(tmp_path) / "ranks.py").write_text(TASKS)
    topology, path = topology_of(tmp_path, FILE)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


@pytest.fixture
def stage(tmp_path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.close()


@pytest.fixture
def publisher(provisioned) -> Iterator[Publisher]:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        yield publisher


def run(start: Start, name: str, *, queue: str = "jobs.one") -> Daemon:
    return start(sys.executable, "-m", "rabbitry", "worker", "run", name, queue=queue)


def completions_before_the_first(publisher: Publisher, stage: Stage, daemon: Daemon) -> int:
    """Return how many jobs end before a job of high priority begins that comes after 10,000."""
    jobs = (Job("gated", (), {"label": f"low-{n}"}, priority=LOW) for n in range(10_000))
    for receipt in publisher.publish_many(jobs):
        receipt.wait()
    until(lambda: len(stage.began()) == 2, timeout_s=30, what="both slots to be busy")
    publisher.publish("gated", label="first", priority=HIGH).wait()
    for completions in range(1, 20):
        stage.let_one_through()

        def next_began(known: int = 2 + completions) -> bool:
            assert daemon.process.poll() is None, daemon.log
            return len(stage.began()) == known

        until(next_began, timeout_s=30, what="the next job to begin")
        if "first" in stage.began():
            return completions
    raise AssertionError(f"it did not begin: {stage.began()}")


def test_a_job_of_high_priority_begins_after_as_many_completions_as_there_are_slots_at_most(
    publisher, stage, start
) -> None:
    assert completions_before_the_first(publisher, stage, run(start, "two")) <= 2


def test_it_waits_behind_all_that_a_worker_holds_when_it_holds_more(
    rabbitmq, publisher, stage, start
) -> None:
    # Four times the slots, as Celery prefetches unless it is told otherwise.
    found = completions_before_the_first(publisher, stage, run(start, "hoarder"))
    # Before 4.3 a low one may still be served in between: two high ones to each.
    assert found == 7 if rabbitmq.knows("4.3") else 7 <= found <= 9


def test_a_retry_is_served_before_every_priority(
    rabbitmq, provisioned, publisher, stage, start
) -> None:
    run(start, "one")
    publisher.publish("gated", label="a", priority=LOW).wait()
    until(lambda: stage.began() == ["a"], timeout_s=30, what="the slot to be busy")
    publisher.publish("flaky", priority=LOW).wait()
    publisher.publish("gated", label="b", priority=LOW).wait()
    stage.let_one_through()
    until(lambda: stage.began() == ["a", "flaky 1", "b"], timeout_s=30, what="the failure")
    for number in range(3):
        publisher.publish("gated", label=f"high-{number}", priority=HIGH).wait()
    # What is set aside is not counted as ready: when there are four, the delay is over.
    address = provisioned.address
    until(lambda: ready_in(address, "jobs.one") == 4, timeout_s=30, what="the retry to be due")
    stage.let_one_through()
    # Before 4.3 it comes off the delay ladder with its own priority.
    then = ["flaky 2", "high-0"] if rabbitmq.knows("4.3") else ["high-0"]
    until(lambda: len(stage.began()) == 3 + len(then), timeout_s=30, what="the next to begin")
    assert stage.began()[3:] == then


def test_two_queues_share_a_worker_by_weight_and_the_lower_one_is_never_starved(
    publisher, stage, start
) -> None:
    jobs = [Job(name, (), {}) for name in ("high", "low") for _ in range(600)]
    for receipt in publisher.publish_many(jobs):
        receipt.wait()
    run(start, "both", queue="jobs.high")
    told = until(
        lambda: len(stage.told()) >= 400 and stage.told(), timeout_s=60, what="400 jobs to run"
    )[:400]
    # 300 to 100, on a quiet machine.
    assert 60 <= told.count("low") <= 140, told.count("low")
    stretches = [told[begin : begin + 40] for begin in range(0, 400, 40)]
    assert all("low" in stretch for stretch in stretches)


def consumers(provisioned: Provisioned) -> dict[str, Any]:
    with Management(provisioned.address) as management:
        found = management.get("consumers", provisioned.address.vhost_name)
    return {
        each["queue"]["name"]: (each["prefetch_count"], each["channel_details"]["connection_name"])
        for each in found
        # Of a new consumer, or one that has just gone, RabbitMQ does not know the channel.
        if each["channel_details"] and not each["queue"]["name"].endswith(".cancellations")
    }


def test_each_consumer_holds_its_share_also_when_it_is_connected_anew(provisioned, start) -> None:
    shares = {"jobs.high": 4, "jobs.low": 2, "jobs.one": 2}
    daemon = run(start, "kind", queue="jobs.high")

    def prefetches(than: str = "") -> str:
        found = consumers(provisioned)
        names = {connection for _, connection in found.values()}
        if {queue: prefetch for queue, (prefetch, _) in found.items()} != shares or than in names:
            return ""
        return names.pop() if len(names) == 1 else ""

    connection = until(prefetches, timeout_s=30, what="the shares to be listed")
    with Management(provisioned.address) as management:
        management.delete("connections", connection)
    until(lambda: prefetches(connection), timeout_s=60, what="the shares after a new connection")
    assert daemon.stop() == 0, daemon.log


def test_what_a_worker_runs_for_celery_s_own_command_is_divided_evenly(provisioned, start) -> None:
    celery = (sys.executable, "-m", "celery", "-A", "consumers.app", "worker", "-c", "4")
    start(*celery, "-P", "threads", "-Q", "jobs.high,jobs.low", queue="jobs.low")
    found = until(
        lambda: len(consumers(provisioned)) == 2 and consumers(provisioned),
        timeout_s=30,
        what="the consumers to be listed",
    )
    assert {queue: prefetch for queue, (prefetch, _) in found.items()} == {
        "jobs.high": 2,
        "jobs.low": 2,
    }


def test_a_worker_with_fewer_slots_than_queues_does_not_start(
    provisioned, rabbitry, tmp_path
) -> None:
    path = tmp_path / "few.yaml"
    path.write_text(FILE.replace("concurrency: 4", "concurrency: 1"))
    done = rabbitry("worker", "run", "both", "--topology", path, cwd=tmp_path)
    assert done.returncode == 2
    assert "worker-slots" in done.stderr or "slots cannot be divided" in done.stderr
    assert "Traceback" not in done.stderr
    connection = connect(provisioned.address)
    try:
        there = connection.default_channel.queue_declare("jobs.high", passive=True)
    finally:
        connection.release()
    assert there.consumer_count == 0
