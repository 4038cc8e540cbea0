"""What docs/why/delivery-guarantees.md promises and no other test holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from producers.caller import Caller
from producers.publisher import Publisher
from tests.end_to_end.conftest import Daemon, Start
from tests.integration.conftest import Provisioned
from tests.provision import QUICK, provision, ready_in, topology_of
from tests.waiting import until

TASKS = """
import os, signal, time
from pathlib import Path
from consumers.job import current_job, job

def note(text):
    with open("notes", "a") as file:
        file.write(text + "\\n")

@job("test.fatal")
def fatal(*, always):
    note("fatal")
    if always or not Path("survive").exists():
        # The worker leads its group: 0 is all of it.
        os.kill(0, signal.SIGKILL)

@job("test.attempt")
def attempt():
    return current_job().attempt

@job("test.patient")
def patient():
    note("begun")
    while not Path("go").exists():
        time.sleep(0.01)
    note("ended")
"""
JOBS = "".join(
    f'  test.{name}: {{task: "guaranteed:{name}", exchange: jobs, routing_key: normal.{name}}}\n'
    for name in ("fatal", "attempt", "patient")
)


@pytest.fixture
def provisioned(rabbitmq, vhost, tmp_path, monkeypatch) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    (tmp_path / "guaranteed.py").write_text(TASKS)
    (tmp_path / "notes").touch()
    head, _, _ = dedent(QUICK).partition("workers:")
    workers = "workers:\n  normal: {queues: [jobs.normal], concurrency: 1, prefetch: 5}\n"
    topology, path = topology_of(tmp_path, head.rstrip() + "\n" + JOBS + workers)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


def run(start: Start, *, queue: str | None = "jobs.normal") -> Daemon:
    return start(sys.executable, "-m", "rabbitry", "worker", "run", "normal", queue=queue)


def notes(folder: Path) -> list[str]:
    return (folder / "notes").read_text().split()


def test_what_a_killed_worker_held_and_had_not_begun_has_lost_an_attempt_too(
    provisioned, start, tmp_path
) -> None:
    with Caller(provisioned.topology, provisioned.url) as caller:
        fatal = caller.submit("test.fatal", always=False, timeout_s=60)
        held = [caller.submit("test.attempt", timeout_s=60) for _ in range(3)]
        until(lambda: ready_in(provisioned.address, "jobs.normal") == 4, timeout_s=20, what="all")
        killed = run(start, queue=None)
        assert killed.process.wait(30) == -9
        (tmp_path / "survive").touch()
        run(start)
        assert [call.result() for call in held] == [2, 2, 2]
        assert fatal.result() is None
    assert notes(tmp_path) == ["fatal", "fatal"]


def test_a_job_that_kills_its_worker_each_time_is_a_dead_letter_of_rabbitmqs(
    provisioned, start, rabbitry, tmp_path
) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("test.fatal", always=True, id="fatal").wait()
    for _ in range(3):
        assert run(start, queue=None).process.wait(30) == -9
    until(lambda: ready_in(provisioned.address, "jobs.dead") == 1, timeout_s=20, what="its death")
    assert notes(tmp_path) == ["fatal"] * 3
    common = ("--topology", provisioned.path)
    (line,) = rabbitry("dead-letters", "list", "--json", *common).stdout.splitlines()
    group = json.loads(line)
    assert (group["job"], group["reason"], group["count"]) == ("test.fatal", "delivery_limit", 1)
    assert group["message"].startswith("RabbitMQ gave it up: each time its worker")
    table = rabbitry("dead-letters", "list", *common).stdout
    assert "delivery_limit  RabbitMQ gave it up: each time its worker" in table
    (case,) = rabbitry("dead-letters", "show", "fatal", "--json", *common).stdout.splitlines()
    told = json.loads(case)["case"]
    assert (told["attempt"], told["queue"]) == (3, "jobs.normal")


def test_a_caller_that_has_gone_makes_no_call_run_again(provisioned, start, tmp_path) -> None:
    daemon = run(start)
    with Caller(provisioned.topology, provisioned.url) as caller:
        caller.submit("test.patient", timeout_s=60)
        until(lambda: notes(tmp_path) == ["begun"], timeout_s=30, what="its beginning")
    (tmp_path / "go").touch()
    with Caller(provisioned.topology, provisioned.url) as caller:
        assert caller.call("test.attempt", timeout_s=30) == 1
    assert daemon.stop() == 0
    assert notes(tmp_path) == ["begun", "ended"]
    assert ready_in(provisioned.address, "jobs.normal") == 0
    assert ready_in(provisioned.address, "jobs.dead") == 0
