"""For development: a worker begins anew when its code changes, and outlives what is wrong."""

from __future__ import annotations

import sys
from textwrap import dedent

import pytest

from producers.caller import Caller
from tests.integration.conftest import Provisioned
from tests.probes import ANYWHERE, Probe
from tests.provision import QUICK, consumers_of, provision, topology_of
from tests.waiting import until

TASK = """
from rabbitry import job

@job("test.word")
def word():
    return "{}"
"""
JOB = '  test.word: {task: "words:word", exchange: jobs, routing_key: normal.test.word}\nworkers:'


@pytest.fixture
def provisioned(rabbitmq, vhost, tmp_path, monkeypatch) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    (tmp_path / "words.py").write_text(TASK.format("first"))
    topology, path = topology_of(tmp_path, dedent(QUICK).replace("workers:", JOB))
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


def test_it_runs_the_code_that_is_there_now(provisioned, start, tmp_path) -> None:
    daemon = start(
        *(sys.executable, "-m", "rabbitry", "worker", "run", "normal"),
        *("--reload", "--health", ANYWHERE),
    )
    code = tmp_path / "words.py"
    with Caller(provisioned.topology, provisioned.url) as caller:
        assert caller.call("test.word", timeout_s=20) == "first"
        code.write_text(TASK.format("second") + "\n    wrong indentation\n")
        until(
            lambda: "the worker goes on as it was" in daemon.log, timeout_s=20, what="the complaint"
        )
        assert caller.call("test.word", timeout_s=20) == "first"
        # It takes longer than --reload needs to notice that it is to end.
        code.write_text(
            TASK.format("third").replace("    return", "    time.sleep(2)\n    return", 1)
            + "\nimport time\n"
        )
        until(
            lambda: daemon.log.count(" ready.") == 2,
            timeout_s=40,
            what="the next process to consume",
        )
        # Of the process that came last.
        probe = Probe.of_log(lambda: daemon.log[daemon.log.rindex("health: ") :])
        last = caller.submit("test.word", timeout_s=20)
        until(lambda: probe.worker("running") == {(): 1}, timeout_s=20, what="the job to begin")
        assert daemon.stop() == 0, daemon.log
        assert last.result() == "third"
    assert consumers_of(provisioned.address, "jobs.normal") == 0
