"""Jobs that say what they see of their cancellation, and a worker for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from broker import case_file
from broker.connection import Address
from tests.end_to_end.conftest import Daemon, Start
from tests.integration.conftest import Provisioned
from tests.letters import inside
from tests.provision import QUICK, provision, topology_of
from tests.rabbitmq import RabbitMQ
from tests.waiting import until

TASKS = """
import json, os, time
from celery import current_app
from rabbitry import Caller, Publisher, Topology, detached
from consumers.job import Cancelled, current_job, current_jobs, job

def note(**fields):
    with open(os.environ["NOTES"], "a") as file:
        file.write(json.dumps({"at": time.time(), **fields}) + "\\n")

def follow(seconds):
    # Until it is cancelled, or the time is over.
    job, ends = current_job(), time.monotonic() + seconds
    note(id=job.id, what="begun")
    while time.monotonic() < ends:
        if job.cancelled:
            note(id=job.id, what="seen")
            return True
        time.sleep(0.01)
    return False

@job("test.obey")
def obey(seconds=60):
    if follow(seconds):
        raise Cancelled("it was told so")
    return "not cancelled"

@job("test.finish")
def finish(seconds=60):
    return follow(seconds)

@job("test.note")
def plain():
    note(id=current_job().id, what="ran")

@job("test.many", batch=50, wait="300ms")
def many(number):
    for each in current_jobs():
        note(id=each.id, what="ran", cancelled=each.cancelled)
    return number

@job("test.parent")
def parent():
    topology = Topology.load(os.environ["RABBITRY_TOPOLOGY"])
    with Caller(topology, one_shot=True) as caller:
        caller.call("test.child", "called", timeout_s=600)
    with Publisher(topology) as publisher:
        publisher.publish("test.child", "published").wait()
        publisher.publish("test.child", "sooner", deadline_s=5).wait()
        with detached():
            publisher.publish("test.child", "detached").wait()
    current_app.send_task("test.child", ("sent",))
    return current_job().deadline_s

@job("test.child")
def child(how):
    now = current_job()
    note(what="child", how=how, deadline_s=now.deadline_s, root_id=now.root_id)
"""
NAMES = {
    "obey": "obey",
    "finish": "finish",
    "note": "plain",
    "many": "many",
    "parent": "parent",
    "child": "child",
}
JOBS = "".join(
    f'  test.{name}: {{task: "cancelling:{function}", exchange: jobs,'
    f" routing_key: normal.test.{name}}}\n"
    for name, function in NAMES.items()
)


class Bench:
    """A topology in force, and what its jobs have noted.

    Args:
        provisioned: the topology.
        notes: the file.
        start: starts daemons.
        env: of commands.
    """

    def __init__(
        self, provisioned: Provisioned, notes: Path, start: Start, env: dict[str, str]
    ) -> None:
        self.topology = provisioned.topology
        self.path = provisioned.path
        self.address: Address = provisioned.address
        self.url = provisioned.url
        self.env = {**env, "RABBITRY_TOPOLOGY": str(provisioned.path)}
        self._notes = notes
        self._start = start

    def worker(self, *, wait: bool = True) -> Daemon:
        """Start the worker, consuming unless it is not waited for."""
        queue = "jobs.normal" if wait else None
        return self._start("rabbitry", "worker", "run", "normal", queue=queue)

    def notes(self, what: str) -> list[dict[str, Any]]:
        """Return what jobs have noted of one kind."""
        found = [json.loads(line) for line in self._notes.read_text().splitlines()]
        return [note for note in found if note["what"] == what]

    def noted(self, what: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until jobs have noted so much of one kind."""

        def enough() -> list[dict[str, Any]]:
            found = self.notes(what)
            return found if len(found) >= count else []

        return until(enough, 30, f"{count} times {what!r}")

    def letters(self) -> list[tuple[str, str]]:
        """Return the ids of dead letters, and their reasons."""
        return [
            (each.id, each.headers[case_file.REASON]) for each in inside(self.address, "jobs.dead")
        ]


MakeBench = Callable[..., Bench]


@pytest.fixture
def bench(
    rabbitmq: RabbitMQ,
    vhost: str,
    tmp_path: Path,
    env: dict[str, str],
    start: Start,
    provisioned: Provisioned,
) -> Bench:
    """A virtual host with the small topology and the jobs above."""
    (tmp_path / "cancelling.py").write_text(TASKS)
    notes = tmp_path / "notes"
    notes.touch()
    env["NOTES"] = str(notes)
    return Bench(provisioned, notes, start, env)


def provisioned_with(
    rabbitmq: RabbitMQ, vhost: str, folder: Path, *, pool: str = "prefork", more: str = ""
) -> Provisioned:
    """Apply the small topology with the jobs above, and a worker with this pool.

    Args:
        rabbitmq: where.
        vhost: the virtual host.
        folder: for the file.
        pool: of the worker.
        more: for the worker besides, as YAML.
    """
    head, _, _ = dedent(QUICK).partition("workers:")
    worker = f"workers:\n  normal: {{queues: [jobs.normal], pool: {pool}, concurrency: 2{more}}}\n"
    topology, path = topology_of(folder, head.rstrip() + "\n" + JOBS + worker)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)
