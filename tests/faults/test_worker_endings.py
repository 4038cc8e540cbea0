"""Endings that need a second look: calls that came too late, replays, workers that are watched."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from amqp import Message

from broker import case_file
from broker.case_file import DEATHS, REPLAYS
from broker.connection import connect
from broker.contracts import Job, contract_of
from broker.management import Management
from broker.message import job_message
from tests.faults.working import DEAD, QUEUE, WORK, Field, check
from tests.letters import inside
from tests.probes import Probe
from tests.provision import provision, ready_in, topology_of
from tests.waiting import until

PASSWORD = "of-the-test"


def test_a_call_that_came_too_late_is_answered_and_counted_and_no_dead_letter(
    field: Field,
) -> None:
    contract = contract_of(field.topology, "work")
    daemon = field.start(options=("--health", "127.0.0.1:0"))
    probe = Probe.of_log(lambda: daemon.log)
    connection = connect(field.address)
    try:
        channel = connection.default_channel
        reply_to = channel.queue_declare(exclusive=True).queue
        late = job_message(
            contract,
            Job("work", (), {"seconds": 0.0}, id="late", deadline_s=1.0),
            published_ms=round((time.time() - 60) * 1000),
            reply_to=reply_to,
        )
        channel.basic_publish(
            Message(
                late.body.content,
                content_type=late.body.content_type,
                content_encoding=late.body.content_encoding,
                application_headers=dict(late.headers),
                **late.properties,
            ),
            "jobs",
            contract.routing_key,
        )
        reply = until(lambda: channel.basic_get(reply_to, no_ack=True), 20, "the answer")
    finally:
        connection.release()
    answer = json.loads(reply.body)
    assert answer["status"] == "FAILURE"
    assert answer["result"]["exc_type"] == "DeadlinePassed"
    assert "deadline passed" in str(answer["result"]["exc_message"])
    outcomes = until(lambda: probe.worker("jobs_total", "job_name", "outcome"), 20, "the count")
    assert outcomes == {("work", "answered"): 1}
    assert not field.lines(), "it was begun"
    assert daemon.stop() == 0
    assert ready_in(field.address, DEAD) == ready_in(field.address, QUEUE) == 0


def test_what_failed_is_replayed_and_done_once_its_task_is_mended(field: Field) -> None:
    broken = Path(field.folder / "broken")
    broken.touch()
    daemon = field.start()
    jobs = field.publish(10, seconds=0, job="fragile")
    other = field.publish(1, seconds="soon")
    until(lambda: ready_in(field.address, DEAD) == 11, 60, "the dead letters")

    def replay(*words: str) -> dict[str, object]:
        done = subprocess.run(
            [sys.executable, "-m", "rabbitry", "dead-letters", "replay", *words, "--json"],
            env={**field.worker_environment(), "RABBITRY_URL": field.address.url},
            cwd=field.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    # Not mended yet: it fails again, and is a dead letter again, of the same id.
    assert replay("--job", "fragile")["replayed"] == 10
    until(lambda: ready_in(field.address, DEAD) == 11, 60, "the dead letters again")
    letters = {each.id: each for each in inside(field.address, DEAD)}
    assert letters.keys() == {*jobs, *other}
    for id in jobs:
        headers = letters[id].headers
        assert headers[REPLAYS] == 1
        assert DEATHS not in headers
        case = case_file.of(headers)
        assert case is not None
        assert (case.reason, case.attempt, case.queue) == ("given-up", 1, QUEUE)
    broken.unlink()
    assert replay("--job", "fragile")["replayed"] == 10
    field.wait_done(lambda done: done == set(jobs))
    assert daemon.stop() == 0
    begun = [line.id for line in field.lines() if line.event == "began"]
    assert {begun.count(id) for id in jobs} == {3}
    ledger = field.close()
    assert ledger.done == Counter(jobs)
    assert list(ledger.dead) == other
    assert not ledger.waiting


@pytest.fixture
def watched(field: Field) -> Iterator[Field]:
    """The field, its workers with the rights of the role `worker` and no others."""
    user = f"worker-{uuid.uuid4().hex[:8]}"
    text = WORK + f"users: {{{user}: {{password: {PASSWORD}, role: worker}}}}\n"
    topology, path = topology_of(field.folder, text)
    provision(topology, field.address)
    field.as_user = replace(field.address, user=user, password=PASSWORD)
    yield replace(field, topology=topology, path=path)
    with Management(field.hurt.address) as management:
        management.delete("users", user)


def test_two_workers_of_one_name_are_watched_without_more_rights_than_their_role(
    watched: Field,
) -> None:
    assert watched.as_user is not None
    daemons = [watched.start("controlled", address=watched.as_user) for _ in range(2)]

    def inspected() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "consumers.app", "inspect", "ping"],
            env={**watched.worker_environment(), "RABBITRY_URL": watched.address.url},
            cwd=watched.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout if done.returncode == 0 else ""

    assert "pong" in until(inspected, 60, "an answer to inspect ping")
    jobs = set(watched.publish(200, seconds=0.002))
    watched.wait_done(lambda done: done == jobs)
    assert len({line.parent for line in watched.lines()}) == 2
    for daemon in daemons:
        assert daemon.process.poll() is None, daemon.log
        assert "RESOURCE_LOCKED" not in daemon.log
        assert daemon.stop() == 0
    check(watched.close())
