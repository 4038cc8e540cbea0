"""The Redis that keeps results is away: jobs whose results it keeps wait for it in RabbitMQ."""

from __future__ import annotations

import sys
from textwrap import dedent

import pytest

from broker.stored import ResultsUnavailable
from producers.caller import Caller
from producers.publisher import Publisher
from producers.results import Results
from tests.end_to_end.conftest import Start
from tests.integration.conftest import Provisioned
from tests.provision import QUICK, provision, ready_in, topology_of
from tests.redis import Redis, running
from tests.waiting import until

TASKS = """
from consumers.job import job

@job("kept.once", once="1h")
def once(number: int) -> int:
    with open("notes", "a") as file:
        file.write(f"{number} ")
    return number + 1
"""
JOBS = """
  kept.once: {task: "paying:once", exchange: jobs, routing_key: normal.once, store: true}
"""


@pytest.fixture
def own() -> Redis:
    """A Redis that may be stopped."""
    with running() as server:
        yield server


SOAKED = [pytest.param(pool, marks=pytest.mark.soak) for pool in ("prefork", "gevent")]


@pytest.fixture(params=["threads", *SOAKED])
def provisioned(rabbitmq, own, vhost, tmp_path, monkeypatch, request) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    monkeypatch.setenv("KEPT_IN", own.url)
    head, _, workers = dedent(QUICK).replace("limit: 2}", "limit: 200}").partition("\nworkers:")
    text = head.replace("demo.add}", "demo.add, store: true}") + JOBS + "workers:" + workers
    text += f"  pool: {{queues: [jobs.normal], pool: {request.param}}}\n"
    text += 'once: {store: "sqlite:once.sqlite3"}\nresults: {backend: "${KEPT_IN}"}\n'
    (tmp_path / "paying.py").write_text(TASKS)
    topology, path = topology_of(tmp_path, text)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


def test_what_redis_does_not_take_is_tried_again_until_it_does(
    own, provisioned, start: Start, tmp_path
) -> None:
    own.stop()
    # It starts without Redis, and says so.
    daemon = start(sys.executable, "-m", "rabbitry", "worker", "run", "pool")
    assert "cannot be read or written" in daemon.log
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("demo.add", 1, 41, id="kept").wait()
        publisher.publish("kept.once", 1, id="once").wait()
    for id in ("kept", "once"):
        until(
            lambda id=id: f"job {id} is not kept" in daemon.log, timeout_s=40, what=f"{id} to run"
        )
    with Caller(provisioned.topology, provisioned.url) as caller:
        # Others run meanwhile, and a caller gets what nobody can read later.
        assert caller.call("demo.echo", "fine", timeout_s=30) == "fine"
        assert caller.call("demo.add", 2, 3, timeout_s=30) == 5
    with Results(provisioned.topology) as results:
        with pytest.raises(ResultsUnavailable, match=r"127\.0\.0\.1") as caught:
            results.get("kept")
        assert own.password not in str(caught.value)
        own.start()
        assert results.get("kept", timeout_s=40) == 42
        assert results.get("once", timeout_s=40) == 2
    until(lambda: ready_in(provisioned.address, "jobs.normal") == 0, timeout_s=20, what="the end")
    assert daemon.stop() == 0
    assert ready_in(provisioned.address, "jobs.dead") == 0
    assert own.password not in daemon.log
    # A job that is on record is not run again to have its result kept.
    assert (tmp_path / "notes").read_text() == "1 "
