"""Whatever goes wrong with a job: one dead letter, the right reason, neighbours unharmed."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from broker import case_file
from broker.body import JSON, Body, encode
from broker.case_file import Reason
from broker.confirmed import ConfirmedChannel
from broker.errors import RemoteError
from broker.message import EMBED, Message
from consumers.queues.browse import Delivery
from producers.caller import Caller, Job
from producers.publisher import Publisher
from tests.integration.conftest import Provisioned
from tests.letters import inside
from tests.provision import QUICK, provision, ready_in, topology_of
from tests.waiting import until

TASKS = """
import asyncio, os, signal, sys, time
from dataclasses import asdict
from broker.errors import InvalidArguments
from consumers.job import current_job, job

def note(text):
    with open(os.environ["NOTES"], "a") as file:
        file.write(text + "\\n")

@job("test.kill")
def kill():
    note("kill")
    os.kill(os.getpid(), signal.SIGKILL)

@job("test.exit")
def leave():
    note("exit")
    sys.exit(3)

@job("test.hopeless", give_up_on=[LookupError])
def hopeless():
    note("hopeless")
    raise KeyError("never there")

@job("test.choosy", retry_on=[OSError], give_up_on=[FileNotFoundError])
def choosy(error):
    note(error)
    raise {"value": ValueError, "refused": ConnectionRefusedError, "file": FileNotFoundError}[error]

@job("test.nested")
def nested():
    note("nested")
    raise InvalidArguments("of a call within", job="other")

@job("test.slow")
def slow():
    note("slow")
    time.sleep(60)

@job("test.now")
def now():
    return {**asdict(current_job()), "remaining_s": current_job().remaining_s}

@job("test.later")
async def later():
    await asyncio.sleep(0)
    return await asyncio.gather(asyncio.to_thread(lambda: current_job().id), name())

async def name():
    return current_job().name

@job("test.odd")
def odd():
    note("odd")
    return object()
"""
NAMES = ("choosy", "kill", "exit", "hopeless", "nested", "slow", "now", "later", "odd")
JOBS = "".join(
    f'  test.{name}: {{task: "failing:{"leave" if name == "exit" else name}", exchange: jobs,'
    f" routing_key: normal.test.{name}{', time_limit: 1s' if name == 'slow' else ''}}}\n"
    for name in NAMES
)


@pytest.fixture
def provisioned(rabbitmq, vhost, tmp_path, monkeypatch) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    head, workers, tail = dedent(QUICK).partition("workers:")
    topology, path = topology_of(tmp_path, head.rstrip() + "\n" + JOBS + workers + tail)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


@pytest.fixture
def notes(tmp_path: Path, env: dict[str, str]) -> Path:
    (tmp_path / "failing.py").write_text(TASKS)
    path = tmp_path / "notes"
    path.touch()
    env["NOTES"] = str(path)
    return path


@pytest.fixture
def daemon(start, notes):
    return start(sys.executable, "-m", "rabbitry", "worker", "run", "normal")


def message(id: str, body: Body | None = None, **headers: Any) -> Message:
    """Return a message for demo.add, but for what is given."""
    good = encode([[1, 2], {}, EMBED])
    table = {"lang": "py", "task": "demo.add", "id": id, "root_id": id, **headers}
    properties = {"message_id": id, "delivery_mode": 2, "correlation_id": id}
    table = {key: value for key, value in table.items() if value is not None}
    return Message(id, body or good, table, properties)


def json_of(value: Any) -> Body:
    return Body(json.dumps(value).encode(), JSON, "utf-8")


# What arrives and never becomes a job: id, message, reason.
NO_JOBS = [
    (message("not-json", Body(b'{"a": \xff', JSON, "utf-8")), Reason.UNDECODABLE),
    (message("not-utf-8", Body(b"[[1, 2], {}, {}", JSON, "binary")), Reason.UNDECODABLE),
    (message("no-array", Body(b"x", "application/vnd.rabbitry.arrays+json", "binary")),
     Reason.UNDECODABLE),
    (message("not-gzip", compression="application/x-gzip"), Reason.UNDECODABLE),
    (message("yaml", Body(b"a: 1", "application/x-yaml", "utf-8")), Reason.CONTENT_TYPE),
    (message("pickle", Body(b"\x80\x04.", "application/x-python-serialize", "binary")),
     Reason.CONTENT_TYPE),
    (message("unknown", task="no.such.job"), Reason.UNKNOWN_JOB),
    (message("list-of-one", json_of([1])), Reason.SHAPE),
    (message("number", json_of(1)), Reason.SHAPE),
    (message("text", json_of("abc")), Reason.SHAPE),
    (message("args-number", json_of([1, {}, EMBED])), Reason.SHAPE),
    (message("kwargs-list", json_of([[], [], EMBED])), Reason.SHAPE),
    (message("embed-text", json_of([[], {}, "abc"])), Reason.SHAPE),
    (message("no-task", json_of({"id": "1"}), task=None), Reason.SHAPE),
    (message("task-is-a-list", task=["demo.add"]), Reason.SHAPE),
    (message("timelimit-text", timelimit="soon"), Reason.SHAPE),
    (message("eta-text", eta="at noon"), Reason.SHAPE),
    (message("expired", expires=(datetime.now(UTC) - timedelta(hours=1)).isoformat()),
     Reason.DEADLINE),
    (message("too-few", json_of([[1], {}, EMBED])), Reason.ARGUMENTS),
]  # fmt: skip


def letters(provisioned: Provisioned, count: int, timeout_s: float = 30) -> dict[str, Delivery]:
    """Wait for so many dead letters, see that there are no more, and return them by id."""
    until(
        lambda: ready_in(provisioned.address, "jobs.dead") >= count,
        timeout_s=timeout_s,
        what=f"{count} dead letters",
    )
    found = inside(provisioned.address, "jobs.dead")
    assert len({each.id for each in found}) == len(found) == count
    return {each.id: each for each in found}


def case_of(letter: Delivery) -> case_file.CaseFile:
    found = case_file.of(letter.headers)
    assert found is not None
    return found


def test_what_is_no_job_becomes_one_dead_letter_with_its_body_as_it_was(provisioned, daemon):
    confirmed = ConfirmedChannel(provisioned.address)
    for each, _ in NO_JOBS:
        confirmed.publish(each, exchange="jobs", routing_key="normal.odd.key")
    assert confirmed.flush(30)
    confirmed.close()
    with Caller(provisioned.topology, provisioned.url) as caller:
        assert caller.call("demo.add", 1, 2, timeout_s=20) == 3
    found = letters(provisioned, len(NO_JOBS))
    assert {id: case_of(each).reason for id, each in found.items()} == {
        each.id: reason for each, reason in NO_JOBS
    }
    for each, _ in NO_JOBS:
        letter, case = found[each.id], case_of(found[each.id])
        assert letter.content == each.body.content
        assert letter.properties["content_type"] == each.body.content_type
        assert letter.routing_key == "normal.odd.key"
        assert (case.exchange, case.routing_key) == ("jobs", "normal.odd.key")
        assert (case.queue, case.attempt) == ("jobs.normal", 1)
        assert case.worker.startswith("normal@")
        assert case.message
    assert found["not-gzip"].headers["compression"] == "application/x-gzip"
    assert ready_in(provisioned.address, "jobs.normal") == 0
    assert daemon.process.poll() is None
    assert daemon.stop() == 0


def test_what_fails_is_tried_as_often_as_it_may_be_and_then_a_dead_letter(
    provisioned, daemon, notes
):
    before_ms = round(time.time() * 1000)
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        for name in ("kill", "exit", "hopeless", "nested", "slow"):
            publisher.publish(f"test.{name}", id=name).wait()
        for error in ("value", "refused", "file"):
            publisher.publish("test.choosy", error, id=error).wait()
        publisher.publish("demo.fail", message="no luck", id="fail").wait()
        publisher.publish(Job("demo.echo", ("late",), id="late", deadline_s=0.001)).wait()
        publisher.publish("demo.add", "x", 1, id="misfit").wait()
    with Caller(provisioned.topology, provisioned.url) as caller:
        # Neighbours of the killed process: none is lost, none runs twice.
        calls = [caller.submit("demo.add", each, 1, timeout_s=60) for each in range(50)]
        assert [call.result() for call in calls] == list(range(1, 51))
    found = letters(provisioned, 11)
    assert {
        id: (str(case_of(each).reason), case_of(each).attempt) for id, each in found.items()
    } == {
        "kill": ("killed", 3),
        "exit": ("limit", 3),
        "hopeless": ("given-up", 1),
        "nested": ("limit", 3),
        "value": ("given-up", 1),
        "refused": ("limit", 3),
        "file": ("given-up", 1),
        "slow": ("time-limit", 1),
        "fail": ("limit", 3),
        "late": ("deadline", 1),
        "misfit": ("arguments", 1),
    }
    runs = notes.read_text().split()
    assert {name: runs.count(name) for name in set(runs)} == {
        "kill": 3, "exit": 3, "hopeless": 1, "nested": 3, "slow": 1,
        "value": 1, "refused": 3, "file": 1,
    }  # fmt: skip
    case = case_of(found["fail"])
    assert case.error == "consumers.jobs.demo.DemoFailure"
    assert case.message == "no luck"
    assert "in fail" in case.traceback
    assert before_ms - 1000 <= case.first_ms < case.last_ms
    assert (case.exchange, case.routing_key) == ("jobs", "normal.demo.fail")
    assert daemon.stop() == 0
    assert ready_in(provisioned.address, "jobs.normal") == 0
    assert ready_in(provisioned.address, "jobs.dead") == 11


def test_a_call_that_is_no_job_or_is_never_done_is_answered_and_no_dead_letter(
    provisioned, daemon, notes
):
    with Caller(provisioned.topology, provisioned.url) as caller:
        calls = {
            name: caller.submit(name, timeout_s=60)
            for name in ("test.kill", "test.slow", "test.odd", "test.exit")
        }
        errors = {name: call.exception(timeout=60) for name, call in calls.items()}
        assert all(isinstance(error, RemoteError) for error in errors.values()), errors
        now = caller.call("test.now", timeout_s=20)
        assert (now["name"], now["attempt"], now["redelivered"]) == ("test.now", 1, False)
        assert now["call"]
        assert 0 < now["remaining_s"] <= 20
        id, name = caller.call("test.later", timeout_s=20)
        assert (len(id), name) == (36, "test.later")
    runs = notes.read_text().split()
    assert {name: runs.count(name) for name in set(runs)} == {
        "kill": 3, "slow": 1, "odd": 1, "exit": 1,
    }  # fmt: skip
    assert "TimeLimitExceeded" in str(errors["test.slow"])
    assert daemon.stop() == 0
    assert ready_in(provisioned.address, "jobs.dead") == 0
    assert ready_in(provisioned.address, "jobs.normal") == 0
