"""Time limits, queues without dead letters, and dead letters that RabbitMQ does not take."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest

from broker import case_file
from broker.body import JSON, Body
from broker.confirmed import ConfirmedChannel
from broker.management import Management
from broker.message import Message
from producers.publisher import Publisher
from tests.integration.conftest import Provisioned
from tests.letters import inside
from tests.provision import QUICK, consumers_of, provision, ready_in, topology_of
from tests.waiting import until

MORE = """
  demo.slow: {task: "slow:slow", exchange: jobs, routing_key: normal.demo.slow}
workers:
  normal: {queues: [jobs.normal], concurrency: 1, time_limit: 1s}
  threads: {queues: [jobs.normal], pool: threads, time_limit: 1s}
  tiny: {queues: [jobs.tiny], concurrency: 1}
"""
TASKS = """
import time
from consumers.job import job

@job("demo.slow")
def slow():
    print("began", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def provisioned(rabbitmq, vhost, tmp_path, monkeypatch) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    (Path(tmp_path) / "slow.py").write_text(TASKS)
    text = dedent(QUICK).partition("workers:")[0].rstrip() + MORE
    topology, path = topology_of(tmp_path, text)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


def undecodable(provisioned: Provisioned, key: str) -> None:
    confirmed = ConfirmedChannel(provisioned.address)
    broken = Message("broken", Body(b"{", JSON, "utf-8"), {"id": "broken", "task": "demo.add"}, {})
    confirmed.publish(broken, exchange="jobs", routing_key=key).wait()
    confirmed.close()


def test_the_worker_s_limit_ends_a_job_once_and_before_rabbitmq_takes_it_back(
    provisioned, start
) -> None:
    daemon = start(sys.executable, "-m", "rabbitry", "worker", "run", "normal")
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("demo.slow").wait()
        publisher.publish("demo.add", 1, 2).wait()
    dead = provisioned.address
    until(lambda: ready_in(dead, "jobs.dead") == 1, timeout_s=20, what="the dead letter")
    until(lambda: "succeeded in" in daemon.log, timeout_s=20, what="the next job")
    (letter,) = inside(provisioned.address, "jobs.dead")
    case = case_file.of(letter.headers)
    assert case is not None
    assert (case.reason, case.attempt) == ("time-limit", 1)
    assert "1 s" in case.message

    def consumer():
        with Management(provisioned.address) as management:
            found = management.get("consumers", provisioned.address.vhost_name)
        return [each for each in found if each["queue"]["name"] == "jobs.normal"]

    # The file's consumer_timeout of 5m is longer than the limit and the time to end the job.
    (there,) = until(consumer, timeout_s=20, what="the consumer to be listed")
    assert there["arguments"] == {"x-consumer-timeout": 300_000}
    assert daemon.stop() == 0
    assert daemon.log.count("began") == 1
    assert ready_in(provisioned.address, "jobs.normal") == 0


def test_a_pool_that_cannot_end_a_job_refuses_a_limit_before_it_consumes(
    provisioned, rabbitry, tmp_path
) -> None:
    done = rabbitry("worker", "run", "threads", "--topology", provisioned.path, cwd=tmp_path)
    assert done.returncode == 1
    assert "has a time limit of 1 s, and the pool threads of worker 'threads'" in done.stderr
    assert "Traceback" not in done.stderr
    assert consumers_of(provisioned.address, "jobs.normal") == 0


def test_a_dead_letter_that_no_queue_takes_is_not_acked_and_goes_back(
    rabbitmq, provisioned, start
) -> None:
    address = provisioned.address
    with Management(address) as management:
        management.delete("queues", address.vhost_name, "jobs.dead")
    daemon = start(sys.executable, "-m", "rabbitry", "worker", "run", "normal")
    undecodable(provisioned, "normal.broken")
    until(lambda: "is not on RabbitMQ" in daemon.log, timeout_s=20, what="the publish to fail")
    provision(provisioned.topology, address)
    until(lambda: ready_in(address, "jobs.dead") == 1, timeout_s=20, what="the dead letter")
    (letter,) = inside(address, "jobs.dead")
    case = case_file.of(letter.headers)
    assert case is not None
    # What went back was not counted, but by a RabbitMQ that counts whatever goes back.
    assert (case.reason, case.attempt) == ("undecodable", 1 if rabbitmq.knows("4.3") else 2)
    assert daemon.stop() == 0
    assert ready_in(address, "jobs.normal") == 0


def test_what_is_over_in_a_queue_without_dead_letters_is_told_and_dropped(
    provisioned, start
) -> None:
    daemon = start(*(sys.executable, "-m", "rabbitry", "worker", "run", "tiny"), queue="jobs.tiny")
    undecodable(provisioned, "tiny.broken")
    until(
        lambda: (
            "is over and lost (undecodable, attempt 1): the queue has no dead_letter" in daemon.log
        ),
        timeout_s=20,
        what="the loss to be told",
    )
    assert daemon.stop() == 0
    assert ready_in(provisioned.address, "jobs.tiny") == 0
