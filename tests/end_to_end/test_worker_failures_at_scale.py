"""Failures in other pools, in great numbers, without rights to configure, and over kill -9."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from textwrap import dedent

import pytest

from broker import case_file
from broker.management import Management
from producers.publisher import Publisher
from tests.integration.conftest import Provisioned
from tests.letters import inside
from tests.provision import QUICK, consumers_of, provision, ready_in, topology_of
from tests.waiting import until

TASKS = """
import asyncio, os, time
from consumers.job import current_job, job

@job("test.gated", give_up_on=[LookupError])
def gated():
    with open("began", "a") as file:
        file.write("x")
    while not os.path.exists("gate"):
        time.sleep(0.01)
    raise KeyError("hopeless")

@job("test.hopeless", give_up_on=[LookupError])
async def hopeless():
    await asyncio.sleep(0)
    raise KeyError(await asyncio.to_thread(lambda: current_job().id))

@job("test.ends")
def ends():
    raise SystemExit(1)
"""
MORE = """
  test.hopeless: {task: "failing:hopeless", exchange: jobs, routing_key: normal.test.hopeless}
  test.gated: {task: "failing:gated", exchange: jobs, routing_key: normal.test.gated}
  test.ends: {task: "failing:ends", exchange: jobs, routing_key: normal.test.ends}
workers:
  normal: {queues: [jobs.normal], pool: %s, concurrency: 2}
"""


@pytest.fixture
def pool() -> str:
    return "prefork"


@pytest.fixture
def provisioned(rabbitmq, vhost, tmp_path, monkeypatch, pool) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    (tmp_path / "failing.py").write_text(TASKS)
    text = dedent(QUICK).partition("workers:")[0].rstrip() + MORE % pool
    topology, path = topology_of(tmp_path, text)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


def run(start):
    return start(sys.executable, "-m", "rabbitry", "worker", "run", "normal")


def reasons(provisioned: Provisioned) -> dict[str, tuple[str, int]]:
    found = {}
    for letter in inside(provisioned.address, "jobs.dead"):
        case = case_file.of(letter.headers)
        assert case is not None
        assert letter.id not in found
        found[letter.id] = (str(case.reason), case.attempt)
    return found


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_other_pools_end_jobs_the_same_way(provisioned, start, pool) -> None:
    daemon = run(start)
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("demo.fail", id="fail").wait()
        publisher.publish("test.hopeless", id="hopeless").wait()
        publisher.publish("test.ends", id="ends").wait()
        publisher.publish("demo.add", "x", 1, id="misfit").wait()
    until(lambda: ready_in(provisioned.address, "jobs.dead") == 4, 20, "four dead letters")
    assert reasons(provisioned) == {
        "fail": ("limit", 3),
        "hopeless": ("given-up", 1),
        "ends": ("limit", 3),
        "misfit": ("arguments", 1),
    }
    hopeless = [x for x in inside(provisioned.address, "jobs.dead") if x.id == "hopeless"]
    # The id that the task read of the current job, in a thread of its own.
    assert hopeless[0].headers[case_file.MESSAGE] == "'hopeless'"
    assert daemon.stop() == 0


def test_hundreds_of_failures_are_as_many_dead_letters_without_a_right_to_configure(
    provisioned, start, env
) -> None:
    count = 400
    vhost, user = provisioned.address.vhost_name, "keeper-" + provisioned.address.vhost_name
    with Management(provisioned.address) as management:
        management.put("users", user, body={"password": "of-the-test", "tags": ""})
        rights = {"configure": "^$", "write": r"^(jobs\.dead|amq\.default)$"}
        management.put("permissions", vhost, user, body={**rights, "read": r"^jobs\.normal$"})
        try:
            owner, host = provisioned.url.partition("://")[2].split("@", 1)
            assert owner
            env["RABBITRY_URL"] = f"amqp://{user}:of-the-test@{host}"
            daemon = run(start)
            with Publisher(provisioned.topology, provisioned.url) as publisher:
                for receipt in [
                    publisher.publish("demo.add", "x", each, id=str(each)) for each in range(count)
                ]:
                    receipt.wait()
            until(lambda: ready_in(provisioned.address, "jobs.dead") >= count, 40, "the letters")
            found = reasons(provisioned)
            assert found == {str(each): ("arguments", 1) for each in range(count)}
            assert daemon.stop() == 0
            assert ready_in(provisioned.address, "jobs.normal") == 0
        finally:
            management.delete("users", user)


def test_no_failure_is_lost_to_kill_9_of_the_worker(provisioned, start) -> None:
    count = 300
    first = run(start)
    address = provisioned.address
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        for receipt in [
            publisher.publish("demo.add", "x", each, id=str(each)) for each in range(count)
        ]:
            receipt.wait()
        until(lambda: ready_in(address, "jobs.dead") >= 20, 20, "some dead letters")
        os.killpg(first.process.pid, signal.SIGKILL)
        first.process.wait()
    second = run(start)
    until(
        lambda: len({each.id for each in inside(address, "jobs.dead")}) == count,
        timeout_s=40,
        what="a dead letter of each",
    )
    assert second.stop() == 0
    letters = Counter(each.id for each in inside(address, "jobs.dead"))
    # Confirmed, but not yet acked when it died: these, and only these, are there twice.
    assert sum(letters.values()) - count <= 2
    assert ready_in(address, "jobs.normal") == 0
    assert consumers_of(address, "jobs.normal") == 0


def test_what_fails_after_its_connection_was_lost_is_one_dead_letter(
    provisioned, start, tmp_path
) -> None:
    daemon, began, address = run(start), tmp_path / "began", provisioned.address
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("test.gated", id="gated").wait()
    until(lambda: began.exists() and began.read_text() == "x", 20, "the job to begin")
    with Management(address) as management:

        def close() -> bool:
            found = [
                each
                for each in management.get("consumers", address.vhost_name)
                if not each["queue"]["name"].endswith(".cancellations")
            ]
            for each in filter(lambda consumer: consumer["channel_details"], found):
                management.delete("connections", each["channel_details"]["connection_name"])
            return any(each["channel_details"] for each in found)

        until(close, 20, "the consumer's connection to be listed")
    until(lambda: "it goes on with the message that came back" in daemon.log, 20, "the message")
    (tmp_path / "gate").touch()
    until(lambda: ready_in(address, "jobs.dead") == 1, 20, "the dead letter")
    assert daemon.stop() == 0
    assert began.read_text() == "x"
    assert reasons(provisioned) == {"gated": ("given-up", 2)}
    assert ready_in(address, "jobs.normal") == 0
