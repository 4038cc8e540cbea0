"""Attempts come at the stated delays, whether RabbitMQ makes them wait or the delay ladder does."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from textwrap import dedent

import pytest

from broker import case_file
from broker.connection import connect
from producers.publisher import Publisher
from tests.end_to_end.conftest import Daemon, Start
from tests.integration.conftest import Provisioned
from tests.letters import inside
from tests.provision import QUICK, provision, ready_in, topology_of
from tests.rabbitmq import RabbitMQ
from tests.waiting import until

TASKS = """
import json, os, signal, time
from consumers.failure.undertaker import Undertaker
from consumers.job import current_job, job

PARENT = os.getpid()

def note():
    job = current_job()
    line = json.dumps({"id": job.id, "attempt": job.attempt, "at_s": time.time()}) + "\\n"
    with open(os.environ["NOTES"], "a") as file:
        file.write(line)
    return job.attempt

@job("test.fail")
def fail():
    note()
    raise OSError("no luck")

@job("test.kill")
def kill():
    note()
    os.kill(os.getpid(), signal.SIGKILL)

@job("test.nap")
def nap():
    note()
    time.sleep(0.3)

@job("test.second")
def second():
    if note() == 1:
        raise OSError("not yet")

@job("test.fatal")
def fatal():
    if note() == 1:
        raise OSError("not yet")
    # The worker and all that is its own.
    os.killpg(PARENT, signal.SIGKILL)

if os.environ.get("KILL_BEFORE_ACK"):
    def die(self, receipt, message):
        receipt.wait()
        os.killpg(PARENT, signal.SIGKILL)

    Undertaker._settle_again = die
"""
NAMES = ("fail", "kill", "nap", "second", "fatal")
JOBS = "".join(
    f'  test.{name}: {{task: "retried:{name}", exchange: jobs, routing_key: normal.test.{name}}}\n'
    for name in NAMES
)
# In a file: it is for a RabbitMQ that delays no retry, and the ladder does it on a newer one, too.
LADDER = 'broker: {requires: "4.0"}\n'
# How early a timer may be.
EARLY_S = 0.05


@dataclass(frozen=True)
class Run:
    """One attempt, as the task itself wrote it down."""

    id: str
    attempt: int
    at_s: float


@pytest.fixture
def notes(tmp_path: Path, env: dict[str, str]) -> Path:
    (tmp_path / "retried.py").write_text(TASKS)
    path = tmp_path / "notes"
    path.touch()
    env["NOTES"] = str(path)
    return path


@pytest.fixture
def requires() -> str:
    """What a file asks for: a RabbitMQ that delays no retry."""
    return LADDER


@pytest.fixture
def provisioned(
    rabbitmq: RabbitMQ,
    vhost: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    retry: str,
    requires: str,
) -> Provisioned:
    """A topology with the retry of a test."""
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    head, workers, tail = dedent(QUICK).lstrip().partition("workers:")
    was = "retry: {delay: 100ms, max_delay: 200ms, limit: 2}"
    assert was in head
    text = head.replace(was, f"retry: {retry}").rstrip() + "\n" + JOBS + workers + tail
    topology, path = topology_of(tmp_path, text + requires)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


def run_worker(start: Start) -> Daemon:
    return start(sys.executable, "-m", "rabbitry", "worker", "run", "normal")


def publish(provisioned: Provisioned, **ids: str) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        for id, name in ids.items():
            publisher.publish(f"test.{name}", id=id).wait()


def runs_in(notes: Path) -> list[Run]:
    return [Run(**json.loads(line)) for line in notes.read_text().splitlines()]


def letters(provisioned: Provisioned, count: int) -> dict[str, case_file.CaseFile]:
    """Wait for so many dead letters, see that there are no more, and return their cases by id."""
    until(
        lambda: ready_in(provisioned.address, "jobs.dead") >= count,
        timeout_s=60,
        what=f"{count} dead letters",
    )
    found = inside(provisioned.address, "jobs.dead")
    cases = {each.id: case for each in found if (case := case_file.of(each.headers)) is not None}
    assert len(cases) == len(found) == count
    return cases


@pytest.mark.parametrize("retry", ["{delay: 1s, max_delay: 3s, limit: 2}"])
@pytest.mark.parametrize("requires", ["", LADDER], ids=["what there is", "the ladder"])
def test_what_fails_is_tried_at_the_stated_delays_and_its_neighbours_once(
    provisioned: Provisioned, start: Start, notes: Path
) -> None:
    worker = run_worker(start)
    naps = {f"nap-{number}": "nap" for number in range(12)}
    publish(provisioned, fail="fail", kill="kill", **naps)
    found = letters(provisioned, 2)
    assert {id: (str(case.reason), case.attempt) for id, case in found.items()} == {
        "fail": ("limit", 3),
        "kill": ("killed", 3),
    }
    for id, case in found.items():
        # Also of what was published again in between.
        assert (case.exchange, case.routing_key) == ("jobs", f"normal.test.{id}")
    assert worker.stop() == 0
    runs = runs_in(notes)
    # Celery takes up to six seconds to notice a killed process, and machines are slow.
    for id, late_s in (("fail", 4), ("kill", 12)):
        own = [run for run in runs if run.id == id]
        assert [run.attempt for run in own] == [1, 2, 3]
        for (one, other), delay_s in zip(pairwise(own), (1, 2), strict=True):
            assert delay_s - EARLY_S <= other.at_s - one.at_s < delay_s + late_s
    # None of the neighbours is lost, runs twice, or is counted.
    assert Counter((run.id, run.attempt) for run in runs if run.id in naps) == Counter(
        (id, 1) for id in naps
    )
    assert ready_in(provisioned.address, "jobs.normal") == 0
    assert ready_in(provisioned.address, "jobs.dead") == 2


@pytest.mark.parametrize("retry", ["{delay: 1s, limit: 3}"])
def test_a_worker_that_is_killed_before_its_ack_loses_nothing_and_doubles_it_at_most(
    provisioned: Provisioned, start: Start, notes: Path, env: dict[str, str]
) -> None:
    env["KILL_BEFORE_ACK"] = "yes"
    killed = run_worker(start)
    publish(provisioned, one="second")
    killed.process.wait(30)
    # The copy waits on the ladder, and the original is back in its queue.
    del env["KILL_BEFORE_ACK"]
    worker = run_worker(start)
    until(lambda: len(runs_in(notes)) == 3, timeout_s=30, what="both copies to run")
    assert worker.stop() == 0
    assert [run.attempt for run in runs_in(notes)] == [1, 2, 2]
    for queue in ("jobs.normal", "jobs.dead"):
        assert ready_in(provisioned.address, queue) == 0


@pytest.mark.soak
@pytest.mark.parametrize("retry", ["{delay: 1s, limit: 1}"])
def test_a_worker_that_is_killed_in_the_last_attempt_gets_no_other_one(
    provisioned: Provisioned, start: Start, notes: Path
) -> None:
    killed = run_worker(start)
    publish(provisioned, one="fatal")
    killed.process.wait(30)
    worker = run_worker(start)
    case = letters(provisioned, 1)["one"]
    assert (case.reason, case.queue) == ("delivery_limit", "jobs.normal")
    assert (case.exchange, case.routing_key) == ("jobs", "normal.test.fatal")
    assert worker.stop() == 0
    assert [run.attempt for run in runs_in(notes)] == [1, 2]


@pytest.mark.soak
@pytest.mark.parametrize("retry", ["{delay: 1s, limit: 1}"])
def test_without_the_ladder_what_failed_is_held_and_comes_back_counted(
    provisioned: Provisioned, start: Start, notes: Path
) -> None:
    connection = connect(provisioned.address)
    connection.default_channel.exchange_delete("quick.delays.1s")
    connection.release()
    worker = run_worker(start)
    publish(provisioned, one="fail")
    case = letters(provisioned, 1)["one"]
    assert (str(case.reason), case.attempt) == ("limit", 2)
    assert worker.stop() == 0
    one, other = runs_in(notes)
    assert (one.attempt, other.attempt) == (1, 2)
    assert other.at_s - one.at_s >= 5 - EARLY_S
    assert "cannot wait for its next attempt on the delay ladder" in worker.log
