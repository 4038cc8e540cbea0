"""Each pool runs jobs, fails them, answers calls and stops in the same way."""

from __future__ import annotations

import sys
import time
from textwrap import dedent

import pytest

from broker import case_file
from broker.errors import RemoteError
from producers.caller import Caller
from producers.publisher import Publisher
from tests.integration.conftest import Provisioned
from tests.letters import inside
from tests.provision import QUICK, provision, ready_in, topology_of
from tests.waiting import until

SLOTS = {"prefork": 2, "threads": 2, "solo": 1, "gevent": 2}
GRACE_S = 2
WORKERS = "".join(
    f"  {pool}: {{queues: [jobs.normal], pool: {pool}, concurrency: {slots}, grace: {GRACE_S}s}}\n"
    for pool, slots in SLOTS.items()
)
# What a machine with its hands full may need beyond the second that the process has.
SLACK_S = 0.75


@pytest.fixture
def provisioned(rabbitmq, vhost, tmp_path, monkeypatch) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    text = dedent(QUICK).partition("workers:")[0] + "workers:\n" + WORKERS
    topology, path = topology_of(tmp_path, text)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


@pytest.fixture(params=list(SLOTS))
def pool(request) -> str:
    return request.param


@pytest.fixture
def daemon(start, pool):
    return start(sys.executable, "-m", "rabbitry", "worker", "run", pool)


def test_every_ending_of_a_job_and_of_the_daemon(rabbitmq, provisioned, daemon) -> None:
    with Caller(provisioned.topology, provisioned.url) as caller:
        assert caller.call("demo.add", 1, 41, timeout_s=20) == 42
        began = time.monotonic()
        assert list(caller.map("demo.echo", range(100), timeout_s=20)) == list(range(100))
        # Celery waits for events a tenth of a second after each job of gevent's.
        assert time.monotonic() - began < 8
        with pytest.raises(RemoteError, match="no luck"):
            caller.call("demo.fail", message="no luck", timeout_s=20)
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("demo.fail", id="limit").wait()
        publisher.publish("demo.add", "x", 1, id="arguments").wait()
        publisher.publish("demo.echo", "fine", id="done").wait()
    until(
        lambda: ready_in(provisioned.address, "jobs.dead") == 2,
        timeout_s=20,
        what="two dead letters",
    )
    cases = {
        letter.headers["id"]: case_file.of(letter.headers)
        for letter in inside(provisioned.address, "jobs.dead")
    }
    found = {id: (case.reason, case.attempt) for id, case in cases.items() if case is not None}
    assert found == {"limit": ("limit", 3), "arguments": ("arguments", 1)}
    assert ready_in(provisioned.address, "jobs.normal") == 0
    done = daemon.log.count("succeeded in")
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        for _ in range(10):
            publisher.publish("demo.sleep", seconds=0.5).wait()
    until(lambda: ready_in(provisioned.address, "jobs.normal") < 10, timeout_s=20, what="the first")
    assert daemon.stop() == 0
    # What ran is finished, what did not is there, and no attempt of it was counted, but by a
    # RabbitMQ that counts whatever comes back.
    waiting = inside(provisioned.address, "jobs.normal")
    counts = {letter.headers.get("x-delivery-count", 0) for letter in waiting}
    assert counts <= {0} or not rabbitmq.knows("4.3"), daemon.log
    assert len(waiting) + daemon.log.count("succeeded in") - done == 10, daemon.log


def test_it_holds_what_it_has_slots_for_and_returns_what_outlasts_the_grace_uncounted(
    rabbitmq, provisioned, daemon, pool
) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        for _ in range(SLOTS[pool] + 1):
            publisher.publish("demo.sleep", seconds=30.0).wait()
    until(
        lambda: ready_in(provisioned.address, "jobs.normal") == 1,
        timeout_s=20,
        what="the slots to be taken",
    )
    started = time.monotonic()
    assert daemon.stop(timeout_s=20) == 0, daemon.log
    took_s = time.monotonic() - started
    assert GRACE_S <= took_s < GRACE_S + 1 + SLACK_S, daemon.log
    waiting = inside(provisioned.address, "jobs.normal")
    assert len(waiting) == SLOTS[pool] + 1
    # RabbitMQ counts failed deliveries, and a lost connection as one for each that it held.
    # Before 4.3 it counts whatever comes back.
    counted = any(letter.headers.get("x-delivery-count") for letter in waiting)
    assert counted is not rabbitmq.knows("4.3"), daemon.log
