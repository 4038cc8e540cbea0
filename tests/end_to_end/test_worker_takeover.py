"""A job whose message RabbitMQ takes back while it runs is not begun a second time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.management import Management
from producers.publisher import Publisher
from tests.end_to_end.conftest import Daemon
from tests.integration.conftest import Provisioned
from tests.provision import consumers_of, provision, ready_in, topology_of
from tests.waiting import until

FILE = """
version: 1
name: takeover
vhost: {name: unused, default_queue_type: quorum}
exchanges: {jobs: {type: topic}, dead: {type: fanout}}
queues:
  jobs.brief:
    bindings: [{exchange: jobs, routing_key: brief}]
    consumer_timeout: 2s
    dead_letter: {exchange: dead}
  jobs.usual:
    bindings: [{exchange: jobs, routing_key: usual}]
    dead_letter: {exchange: dead}
  dead: {bindings: [{exchange: dead}]}
jobs:
  brief: {task: "slow:brief", exchange: jobs, routing_key: brief}
  usual: {task: "slow:usual", exchange: jobs, routing_key: usual}
workers:
  brief: {queues: [jobs.brief], pool: threads, concurrency: 2}
  threads: {queues: [jobs.usual], pool: threads, concurrency: 2}
  prefork: {queues: [jobs.usual], pool: prefork, concurrency: 2}
"""
TASKS = """
from consumers.job import current_job, job


def run(label: str, gated: bool):
    tell(f"began {label} {current_job().attempt}")
    if gated:
        with open("gate", "rb", buffering=0) as gate:
            gate.read(1)
    tell(f"done {label}")


def tell(text):
    with open("told", "a") as file:
        file.write(text + "\\n")


@job("brief")
def brief(label: str, gated: bool = False):
    run(label, gated)


@job("usual")
def usual(label: str, gated: bool = False):
    run(label, gated)
"""


@pytest.fixture
def provisioned(rabbitmq, vhost, tmp_path, monkeypatch) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    (Path(tmp_path) / "slow.py").write_text(TASKS)
    topology, path = topology_of(tmp_path, FILE)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


@pytest.fixture
def gate(tmp_path) -> Iterator[int]:
    """Where gated jobs wait: each byte lets one of them through."""
    os.mkfifo(tmp_path / "gate")
    gate = os.open(tmp_path / "gate", os.O_RDWR)
    yield gate
    os.close(gate)


def told(folder: Path) -> list[str]:
    path = folder / "told"
    return path.read_text().splitlines() if path.exists() else []


def held(provisioned: Provisioned, queue: str) -> dict[str, Any]:
    """Return what RabbitMQ's statistics say of a queue: ready, unacked, consumers."""
    with Management(provisioned.address) as management:
        found = management.get("queues", provisioned.address.vhost_name, queue)
    return {key: found.get(key) for key in ("messages", "messages_unacknowledged", "consumers")}


def is_empty(provisioned: Provisioned, queue: str) -> bool:
    return held(provisioned, queue) == {"messages": 0, "messages_unacknowledged": 0, "consumers": 1}


def run(start: Any, name: str, queue: str) -> Daemon:
    return start(sys.executable, "-m", "rabbitry", "worker", "run", name, queue=queue)


def test_a_job_that_outlasts_the_consumer_time_out_runs_once_and_disturbs_nobody(
    rabbitmq, provisioned, start, gate, tmp_path
) -> None:
    daemon = run(start, "brief", "jobs.brief")
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("brief", label="long", gated=True, id="long").wait()
        if not rabbitmq.knows("4.3"):
            # It looks once a minute, and closes the channel: the worker connects anew.
            came_back = "job long still runs here: it goes on with the message that came back"
            until(lambda: came_back in daemon.log, timeout_s=90, what="the message to come back")
            os.write(gate, b".")
            until(lambda: is_empty(provisioned, "jobs.brief"), timeout_s=20, what="its end")
            assert told(tmp_path) == ["began long 1", "done long"]
            assert daemon.stop() == 0, daemon.log
            return
        # RabbitMQ takes it back every two seconds; the third time shows that the second was met.
        until(
            lambda: daemon.log.count("took back what ran for longer than 2 s") >= 3,
            timeout_s=60,
            what="three time-outs",
        )
        assert "brief (long)" in daemon.log
        publisher.publish("brief", label="next").wait()
        until(lambda: "done next" in told(tmp_path), timeout_s=30, what="another job to run")
    assert told(tmp_path) == ["began long 1", "began next 1", "done next"]
    # One consumer, whatever RabbitMQ has ended.
    assert consumers_of(provisioned.address, "jobs.brief") == 1
    os.write(gate, b".")
    until(lambda: "done long" in told(tmp_path), timeout_s=30, what="the job to end")
    until(lambda: is_empty(provisioned, "jobs.brief"), timeout_s=30, what="its acknowledgement")
    assert daemon.process.poll() is None
    assert told(tmp_path).count("began long 1") == 1
    # The connection stayed: whatever else ran there was not disturbed.
    assert daemon.log.count("Connected to") == 1
    assert daemon.stop() == 0, daemon.log
    assert ready_in(provisioned.address, "jobs.brief") == 0


@pytest.mark.parametrize("pool", [pytest.param("threads", marks=pytest.mark.soak), "prefork"])
def test_a_job_that_runs_while_its_connection_is_lost_goes_on_and_is_not_begun_again(
    provisioned, start, gate, tmp_path, pool
) -> None:
    daemon = run(start, pool, "jobs.usual")
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("usual", label="long", gated=True).wait()
    until(lambda: told(tmp_path), timeout_s=30, what="the job to begin")

    def connections() -> set[str]:
        with Management(provisioned.address) as management:
            found = management.get("consumers", provisioned.address.vhost_name)
        # Of a new consumer RabbitMQ does not know the channel yet.
        return {
            each["channel_details"]["connection_name"]
            for each in found
            if each["channel_details"] and each["queue"]["name"] == "jobs.usual"
        }

    (connection,) = until(connections, timeout_s=30, what="the consumer to be listed")
    with Management(provisioned.address) as management:
        management.delete("connections", connection)
    until(lambda: "still runs here" in daemon.log, timeout_s=90, what="the message to come back")
    os.write(gate, b".")
    until(lambda: "done long" in told(tmp_path), timeout_s=30, what="the job to end")
    until(lambda: is_empty(provisioned, "jobs.usual"), timeout_s=30, what="its acknowledgement")
    assert told(tmp_path) == ["began long 1", "done long"]
