"""Finished jobs do not run again: not after kill -9, nor when they are published twice."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from producers.caller import Caller
from producers.publisher import Publisher
from tests.end_to_end.conftest import Daemon, Start
from tests.integration.conftest import Provisioned
from tests.provision import QUICK, consumers_of, provision, ready_in, topology_of
from tests.waiting import until

TASKS = """
import asyncio, hashlib, os, signal
from pathlib import Path
import numpy as np
from consumers.job import job
from consumers.once.sqlite import SqliteStore

def note(text):
    with open("notes", "a") as file:
        file.write(text + "\\n")

class Deadly(SqliteStore):
    # Between the record and everything after it: the reply and the acknowledgement.
    def keep(self, key, record, *, ttl_s):
        super().keep(key, record, ttl_s=ttl_s)
        victim = Path("victim")
        if victim.exists():
            # The worker leads its group: 0 is all of it.
            group = victim.read_text() == "worker"
            victim.unlink()
            os.kill(0 if group else os.getpid(), signal.SIGKILL)

def deadly():
    return Deadly("once.sqlite3")

@job("once.noise", once="1h")
def noise(size):
    series = np.random.default_rng().standard_normal(size)
    series[0] = np.nan
    note(hashlib.sha256(series.tobytes()).hexdigest())
    return {"series": series}

@job("once.later", once="1h")
async def later(number):
    await asyncio.sleep(0)
    note(f"later {number}")
    return os.urandom(8).hex()

@job("once.brief", once="50ms")
def brief():
    note("brief")
    return os.urandom(8).hex()

@job("once.shaky", once="1h")
def shaky():
    note("shaky")
    if not Path("mended").exists():
        raise OSError("not yet")
"""
JOBS = {
    name: f'  once.{name}: {{task: "paying:{name}", exchange: jobs, routing_key: normal.{name}}}\n'
    for name in ("noise", "later", "brief", "shaky")
}
DEADLY = "once: {store: 'paying:deadly'}\n"
FILE = "once: {store: 'sqlite:once.sqlite3'}\n"


def prepare(rabbitmq, vhost: str, folder: Path, once: str, *, pool: str = "prefork") -> Provisioned:
    (folder / "paying.py").write_text(TASKS)
    (folder / "notes").touch()
    head, _, _ = dedent(QUICK).partition("workers:")
    # The pool gevent runs no coroutines.
    jobs = "".join(line for name, line in JOBS.items() if (name, pool) != ("later", "gevent"))
    workers = f"workers:\n  normal: {{queues: [jobs.normal], pool: {pool}}}\n"
    topology, path = topology_of(folder, head.rstrip() + "\n" + jobs + workers + once)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


@pytest.fixture
def provisioned(rabbitmq, vhost, tmp_path, monkeypatch, request) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    once, pool = getattr(request, "param", (FILE, "prefork"))
    return prepare(rabbitmq, vhost, tmp_path, once, pool=pool)


def run(start: Start) -> Daemon:
    return start(sys.executable, "-m", "rabbitry", "worker", "run", "normal")


def notes(folder: Path) -> list[str]:
    return (folder / "notes").read_text().split("\n")[:-1]


def drained(provisioned: Provisioned, daemon: Daemon) -> None:
    """Stop a worker and see that nothing is left of what it was given."""
    assert daemon.stop() == 0
    assert ready_in(provisioned.address, "jobs.normal") == 0
    assert ready_in(provisioned.address, "jobs.dead") == 0


@pytest.mark.parametrize("provisioned", [(DEADLY, "prefork")], indirect=True)
@pytest.mark.parametrize("victim", ["worker", "child"])
def test_what_was_killed_between_record_and_ack_is_answered_and_not_run_again(
    provisioned, start, tmp_path, victim
) -> None:
    (tmp_path / "victim").write_text(victim)
    daemon = run(start)
    with Caller(provisioned.topology, provisioned.url) as caller:
        call = caller.submit("once.noise", 1000, timeout_s=60)
        if victim == "worker":
            assert daemon.process.wait(30) == -9
            assert not call.done()
            daemon = run(start)
        result = call.result()
    series = np.asarray(result["series"])
    assert np.isnan(series[0])
    assert notes(tmp_path) == [hashlib.sha256(series.tobytes()).hexdigest()]
    assert not (tmp_path / "victim").exists()
    drained(provisioned, daemon)


@pytest.mark.parametrize("provisioned", [(DEADLY, "prefork")], indirect=True)
def test_a_finished_job_of_a_killed_worker_is_only_acknowledged(
    provisioned, start, tmp_path
) -> None:
    (tmp_path / "victim").write_text("worker")
    killed = run(start)
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("once.later", 1, id="paid").wait()
    assert killed.process.wait(30) == -9
    daemon = run(start)
    until(lambda: "(paid) is not run" in daemon.log, timeout_s=30, what="the second delivery")
    drained(provisioned, daemon)
    assert notes(tmp_path) == ["later 1"]


@pytest.mark.parametrize(
    "provisioned", [(FILE, "prefork"), (FILE, "threads"), (FILE, "gevent")], indirect=True
)
def test_what_is_published_twice_runs_once_in_each_pool(provisioned, start, tmp_path) -> None:
    daemon = run(start)
    name = "once.noise"
    with Caller(provisioned.topology, provisioned.url) as caller:
        first, second = (
            [
                call.result()["series"].tobytes()
                for call in [caller.submit(name, 9, id=f"{n}", timeout_s=30) for n in range(30)]
            ]
            for _ in range(2)
        )
    assert first == second
    assert len(set(first)) == len(notes(tmp_path)) == 30
    drained(provisioned, daemon)


@pytest.mark.parametrize("provisioned", [(FILE, "prefork"), (FILE, "threads")], indirect=True)
def test_two_workers_share_the_record_of_coroutines(provisioned, start, tmp_path) -> None:
    daemons = [run(start), run(start)]
    until(
        lambda: consumers_of(provisioned.address, "jobs.normal") == 2,
        timeout_s=30,
        what="both workers",
    )
    with Caller(provisioned.topology, provisioned.url) as caller:
        results = [
            [
                call.result()
                for call in [
                    caller.submit("once.later", n, id=f"{n}", timeout_s=30) for n in range(20)
                ]
            ]
            for _ in range(4)
        ]
    assert results[1:] == results[:1] * 3
    assert sorted(notes(tmp_path)) == sorted(f"later {n}" for n in range(20))
    assert sum(daemon.log.count("is not run") for daemon in daemons) == 60
    for daemon in daemons:
        assert daemon.stop() == 0


def test_a_job_runs_again_when_its_time_on_record_is_over(provisioned, start, tmp_path) -> None:
    run(start)
    with Caller(provisioned.topology, provisioned.url) as caller:
        first = caller.call("once.brief", timeout_s=30)
        assert len(first) == 16
        call = caller.submit("once.brief", id="same", timeout_s=30).result()
        until(
            lambda: caller.submit("once.brief", id="same", timeout_s=30).result() != call,
            timeout_s=30,
            what="the record to expire",
        )
    assert len(notes(tmp_path)) >= 3


def test_a_dead_letter_runs_again_when_it_is_replayed_and_then_never_more(
    provisioned, start, rabbitry, tmp_path
) -> None:
    daemon = run(start)
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("once.shaky", id="order").wait()
        until(
            lambda: ready_in(provisioned.address, "jobs.dead") == 1, timeout_s=30, what="its death"
        )
        assert notes(tmp_path) == ["shaky"] * 3
        (tmp_path / "mended").touch()
        done = rabbitry(
            *("dead-letters", "replay", "--id", "order", "--topology", provisioned.path)
        )
        assert done.returncode == 0, done.stderr
        until(lambda: len(notes(tmp_path)) == 4, timeout_s=30, what="its last run")
        publisher.publish("once.shaky", id="order").wait()
    until(lambda: "(order) is not run" in daemon.log, timeout_s=30, what="its copy")
    drained(provisioned, daemon)
    assert notes(tmp_path) == ["shaky"] * 4


@pytest.mark.parametrize(
    ("provisioned", "text"),
    [
        (("", "prefork"), "the topology names no store of finished jobs; add"),
        (("once: {store: 'sqlite:paying.py'}\n", "prefork"), "paying.py cannot be used"),
        (("once: {store: 'sqlite:gone/once.sqlite3'}\n", "prefork"), "No such file or directory"),
        (("once: {store: 'paying:nobody'}\n", "prefork"), "cannot be imported"),
    ],
    indirect=["provisioned"],
    ids=["no store", "no database", "no folder", "no function"],
)
def test_a_worker_without_its_store_does_not_start(provisioned, rabbitry, tmp_path, text) -> None:
    done = rabbitry("worker", "run", "normal", "--topology", provisioned.path, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "job 'once." in line
    assert text in line
