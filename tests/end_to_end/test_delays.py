"""Workers never hold what is not due: RabbitMQ does, and loses none of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from textwrap import dedent

import pytest

from broker.connection import connect
from producers.caller import Caller
from producers.publisher import Publisher
from tests.integration.conftest import Provisioned
from tests.provision import QUICK, provision, ready_in, topology_of
from tests.waiting import until

# Tasks of the test's own, which write down when they run.
TASKS = """
import os, time
from consumers.job import job

def note(text):
    with open(os.environ["NOTES"], "a") as file:
        file.write(f"{time.time()} {text}\\n")

@job("noted")
def noted(text):
    note(text)

@job("stubborn", bind=True, max_retries=3)
def stubborn(self, text):
    note(f"{text} {self.request.retries}")
    if self.request.retries < 2:
        raise self.retry(countdown=1)

@job("parent")
def parent(text):
    noted.apply_async((text,), countdown=1.5)
"""
JOBS = """
  noted: {task: "noting:noted", exchange: jobs, routing_key: normal.noted}
  stubborn: {task: "noting:stubborn", exchange: jobs, routing_key: normal.stubborn}
  parent: {task: "noting:parent", exchange: jobs, routing_key: normal.parent}
workers:
  single: {queues: [jobs.normal], pool: %s, concurrency: 1}
delays: {max: 1m}
"""


@pytest.fixture
def notes(tmp_path: Path, env: dict[str, str]) -> Path:
    (tmp_path / "noting.py").write_text(TASKS)
    path = tmp_path / "notes"
    path.touch()
    env["NOTES"] = str(path)
    return path


@pytest.fixture
def pool() -> str:
    return "prefork"


@pytest.fixture
def provisioned(rabbitmq, vhost, tmp_path, monkeypatch, pool) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    text = dedent(QUICK).partition("workers:")[0].rstrip() + JOBS % pool
    topology, path = topology_of(tmp_path, text)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


@pytest.fixture
def single(start, notes):
    return start(sys.executable, "-m", "rabbitry", "worker", "run", "single")


def lines_of(notes: Path) -> list[tuple[float, str]]:
    found = [line.partition(" ") for line in notes.read_text().splitlines()]
    return [(float(at), text) for at, _, text in found]


def plain(env: dict[str, str], program: str) -> str:
    """Run a program in a plain Celery client, a process of its own, on our queues."""
    head = (
        "import os, time, celery\napp = celery.Celery('plain', broker=os.environ['RABBITRY_URL'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", head + dedent(program)],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SENDS = """
for i in range({count}):
    print(time.time())
    app.send_task("noted", (f"late {{i}}",), countdown={countdown}, queue="jobs.normal")
"""


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_what_plain_celery_clients_delay_never_blocks_a_worker(
    provisioned, notes, single, env
) -> None:
    sent = [float(each) for each in plain(env, SENDS.format(count=4, countdown=4)).split()]
    # Four countdowns and one slot: a plain worker would run nothing before they are over.
    with Caller(provisioned.topology, provisioned.url) as caller:
        assert caller.call("demo.add", 1, 2, timeout_s=3) == 3
    assert time.time() < sent[0] + 4
    assert lines_of(notes) == []
    until(lambda: len(lines_of(notes)) == 4, timeout_s=15, what="the late ones")
    for at, text in lines_of(notes):
        assert at >= sent[int(text.split()[1])] + 4
    assert max(at for at, _ in lines_of(notes)) < sent[-1] + 8
    assert single.stop() == 0
    assert ready_in(provisioned.address, "jobs.normal") == 0
    assert ready_in(provisioned.address, "quick.delays.lost") == 0


def test_retries_and_subtasks_wait_on_rabbitmq_too(provisioned, notes, single) -> None:
    started = time.time()
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("stubborn", "again").wait()
        publisher.publish("parent", "child").wait()
    until(lambda: len(lines_of(notes)) == 4, timeout_s=20, what="two retries and a child")
    again = [at for at, text in lines_of(notes) if text.startswith("again")]
    assert [text for _, text in lines_of(notes) if text.startswith("again")] == [
        *("again 0", "again 1", "again 2")
    ]
    assert all(later - earlier >= 1 for earlier, later in pairwise(again))
    child = [at for at, text in lines_of(notes) if text == "child"]
    assert len(child) == 1
    assert child[0] - started >= 1.5
    assert single.stop() == 0
    assert ready_in(provisioned.address, "jobs.dead") == 0


def test_the_application_delays_what_it_sends_and_declares_nothing(
    provisioned, notes, single, env, tmp_path
) -> None:
    program = """
        import time
        from consumers.app import app
        from celery import chain, group
        from noting import noted
        print(time.time())
        noted.apply_async(("short",), countdown=0.2)
        noted.apply_async(("high",), countdown=1, priority=9)
        chain(noted.si("first"), noted.si("second").set(countdown=1)).apply_async()
        app.send_task("noted", ("named",), countdown=1, queue="jobs.normal")
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(program)],
        env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    sent = float(done.stdout)
    until(lambda: len(lines_of(notes)) == 5, timeout_s=20, what="all of them")
    ran = {text: at - sent for at, text in lines_of(notes)}
    assert ran["short"] >= 0.2
    assert min(ran["high"], ran["named"]) >= 1
    assert ran["second"] - ran["first"] >= 0.9
    assert single.stop() == 0
    connection = connect(provisioned.address)
    try:
        with pytest.raises(Exception, match="celery_delayed_27"):
            connection.default_channel.exchange_declare("celery_delayed_27", "topic", passive=True)
    finally:
        connection.release()


def test_nothing_is_lost_when_a_worker_is_killed_as_it_hands_on(
    provisioned, notes, start, env
) -> None:
    count = 300
    worker = start(sys.executable, "-m", "rabbitry", "worker", "run", "single")
    plain(env, SENDS.format(count=count, countdown=12))
    until(lambda: worker.log.count("RabbitMQ holds it") >= 20, timeout_s=20, what="a few handed on")
    os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    start(sys.executable, "-m", "rabbitry", "worker", "run", "single")
    expected = {f"late {i}" for i in range(count)}
    until(
        lambda: {text for _, text in lines_of(notes)} == expected,
        timeout_s=60,
        what=f"all {count}",
    )
    # What was confirmed and not acknowledged yet when the worker died comes twice: no more than
    # it had slots.
    assert len(lines_of(notes)) <= count + 1
