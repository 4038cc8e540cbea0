"""Many jobs ahead of two slots: quick ones are told of together, and every promise holds."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from producers.caller import Caller
from producers.publisher import Publisher
from tests.end_to_end.test_worker import children_of
from tests.integration.conftest import Provisioned
from tests.integration.test_publisher_tls import certificate, tls_port
from tests.provision import QUICK, consumers_of, provision, ready_in, topology_of
from tests.waiting import until

__all__ = ["certificate", "tls_port"]

TASKS = """
import os, signal, time
from consumers.job import current_job, job

def note(text):
    with open(os.environ["NOTES"], "a") as file:
        file.write(text + "\\n")

@job("test.quick")
def quick(number: int, padding: str = ""):
    note(f"{number} {current_job().attempt} {len(padding)}")

@job("test.hold")
def hold(path: str):
    note("hold")
    while not os.path.exists(path):
        time.sleep(0.01)

@job("test.kill")
def kill():
    note("kill")
    os.kill(os.getpid(), signal.SIGKILL)

@job("test.limited")
def limited():
    note("limited")
    time.sleep(60)
"""
JOBS = "".join(
    f'  test.{name}: {{task: "speedy:{name}", exchange: jobs, routing_key: normal.{name}'
    f"{', time_limit: 1s' if name == 'limited' else ''}}}\n"
    for name in ("quick", "hold", "kill", "limited")
)
WIDE = "  wide: {queues: [jobs.normal], concurrency: 2, prefetch: 64, grace: 3s}\n"
WORKER = (sys.executable, "-m", "rabbitry", "worker", "run", "wide", "--loglevel", "WARNING")


@pytest.fixture
def provisioned(rabbitmq, vhost, tmp_path, monkeypatch) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    head, workers, tail = dedent(QUICK).partition("workers:")
    text = head.rstrip() + "\n" + JOBS + workers + tail.rstrip() + "\n" + WIDE
    topology, path = topology_of(tmp_path, text)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


@pytest.fixture
def notes(tmp_path: Path, env: dict[str, str]) -> Path:
    (tmp_path / "speedy.py").write_text(TASKS)
    path = tmp_path / "notes"
    path.touch()
    env["NOTES"] = str(path)
    return path


def publish(provisioned: Provisioned, *jobs: tuple[Any, ...]) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        for receipt in publisher.publish_many(jobs):
            receipt.wait()


def quick(count: int) -> list[tuple[Any, ...]]:
    return [("test.quick", (number,)) for number in range(count)]


def runs(notes: Path) -> list[tuple[int, int]]:
    """Return the number and the attempt of each run of a quick job."""
    lines = [line.split() for line in notes.read_text().splitlines()]
    return [(int(line[0]), int(line[1])) for line in lines if line[0].isdigit()]


def left(provisioned: Provisioned, *, least: int = 1) -> int:
    """Return how many there are without a consumer that held them; they come back after a delay."""
    until(lambda: consumers_of(provisioned.address, "jobs.normal") == 0, 30, "no consumer")
    with contextlib.suppress(AssertionError):
        until(lambda: ready_in(provisioned.address, "jobs.normal") >= least, 1, "what was held")
    return ready_in(provisioned.address, "jobs.normal")


def is_over(provisioned: Provisioned, notes: Path, count: int) -> bool:
    return len(set(runs(notes))) >= count and ready_in(provisioned.address, "jobs.normal") == 0


def test_each_job_is_run_once_and_none_is_left_unacknowledged(provisioned, start, notes) -> None:
    publish(provisioned, *quick(800))
    daemon = start(*WORKER)
    until(lambda: is_over(provisioned, notes, 800), timeout_s=60, what="800 jobs")
    assert daemon.stop() == 0
    # What is not acknowledged is ready again without the worker.
    assert left(provisioned) == 0
    assert sorted(runs(notes)) == [(number, 1) for number in range(800)]


def test_one_that_is_killed_amidst_many_jobs_loses_none(provisioned, start, notes) -> None:
    publish(provisioned, *quick(1200))
    first = start(*WORKER)
    until(lambda: len(runs(notes)) > 300, timeout_s=60, what="the first jobs")
    os.killpg(first.process.pid, signal.SIGKILL)
    first.process.wait()
    until(lambda: consumers_of(provisioned.address, "jobs.normal") == 0, 30, "its end")
    second = start(*WORKER)
    until(lambda: len({number for number, _ in runs(notes)}) == 1200, timeout_s=90, what="all jobs")
    until(lambda: ready_in(provisioned.address, "jobs.normal") == 0, 30, "an empty queue")
    assert second.stop() == 0
    assert left(provisioned) == 0
    assert ready_in(provisioned.address, "jobs.dead") == 0
    # Again ran at most what the killed worker held.
    assert len(runs(notes)) - 1200 <= 64


def test_processes_that_are_killed_take_only_their_own_job_with_them(
    provisioned, start, notes
) -> None:
    daemon = start(*WORKER)
    jobs = quick(900)
    for at in (700, 400, 200):
        jobs.insert(at, ("test.kill", ()))
    publish(provisioned, *jobs)
    for already in (100, 450):
        until(lambda already=already: len(runs(notes)) > already, timeout_s=60, what="some jobs")
        os.kill(children_of(daemon.process.pid)[0], signal.SIGKILL)
    until(
        lambda: (
            len({number for number, _ in runs(notes)}) == 900
            and ready_in(provisioned.address, "jobs.dead") == 3
        ),
        timeout_s=90,
        what="all jobs done and three dead letters",
    )
    assert daemon.stop() == 0
    assert left(provisioned) == 0
    # Each of the two that we killed may have been running one: also one of the three that end
    # their process, which had not said so yet.
    unsaid = 9 - notes.read_text().split().count("kill")
    again = [number for number, attempt in runs(notes) if attempt > 1]
    assert unsaid >= 0
    assert unsaid + len(again) <= 2
    assert len(runs(notes)) - 900 <= 2


def test_a_long_job_holds_up_none_behind_it(provisioned, start, notes, tmp_path) -> None:
    daemon = start(*WORKER)
    go = tmp_path / "go"
    publish(provisioned, *quick(100), ("test.hold", (str(go),)), *quick(300)[100:])
    until(lambda: len(runs(notes)) == 300, timeout_s=60, what="all quick jobs")
    assert "hold" in notes.read_text()
    go.touch()
    until(lambda: ready_in(provisioned.address, "jobs.normal") == 0, 30, "an empty queue")
    assert daemon.stop() == 0
    assert left(provisioned) == 0
    assert notes.read_text().count("hold") == 1


def test_a_time_limit_counts_from_the_beginning_of_its_own_job(
    provisioned, start, notes, tmp_path
) -> None:
    daemon = start(*WORKER)
    go = tmp_path / "go"
    # Both slots are taken for longer than the limit of what waits behind them.
    publish(provisioned, *[("test.hold", (str(go),))] * 2)
    until(lambda: notes.read_text().count("hold") == 2, timeout_s=30, what="both to run")
    publish(provisioned, ("test.limited", ()), *quick(50))
    with pytest.raises(AssertionError, match="a dead letter"):
        until(lambda: ready_in(provisioned.address, "jobs.dead"), 2, "a dead letter")
    go.touch()
    until(lambda: ready_in(provisioned.address, "jobs.dead") == 1, 30, "the dead letter")
    until(lambda: len(runs(notes)) == 50, timeout_s=30, what="the quick jobs")
    assert daemon.stop() == 0
    assert "limited" in notes.read_text()
    assert left(provisioned) == 0


def test_what_waits_in_the_pool_goes_back_uncounted_when_the_worker_stops(
    rabbitmq, provisioned, start, notes, tmp_path
) -> None:
    daemon = start(*WORKER)
    go = tmp_path / "go"
    publish(provisioned, *[("test.hold", (str(go),))] * 2)
    until(lambda: notes.read_text().count("hold") == 2, timeout_s=30, what="both to run")
    publish(provisioned, *quick(40))
    until(lambda: ready_in(provisioned.address, "jobs.normal") == 0, 30, "the worker to hold all")
    daemon.process.send_signal(signal.SIGTERM)
    until(lambda: ready_in(provisioned.address, "jobs.normal") == 40, 30, "them to be back")
    go.touch()
    # A second signal would end it at once.
    assert daemon.process.wait(30) == 0
    assert runs(notes) == []
    start(*WORKER)
    until(lambda: len(runs(notes)) == 40, timeout_s=30, what="them to run")
    assert sorted(number for number, _ in runs(notes)) == list(range(40))
    # Before 4.3 RabbitMQ counts whatever comes back.
    assert {attempt == 1 for _, attempt in runs(notes)} == {rabbitmq.knows("4.3")}


def test_a_stop_amidst_quick_jobs_loses_nothing_and_runs_nothing_twice(
    rabbitmq, provisioned, start, notes
) -> None:
    publish(provisioned, *quick(1200))
    for already in (100, 400, 700):
        daemon = start(*WORKER)
        until(lambda already=already: len(runs(notes)) > already, timeout_s=60, what="some jobs")
        assert daemon.stop() == 0
    start(*WORKER)
    until(lambda: is_over(provisioned, notes, 1200), timeout_s=60, what="all jobs")
    found = sorted(runs(notes))
    assert [number for number, _ in found] == list(range(1200))
    # What comes back before it has begun is counted before 4.3.
    assert {attempt for _, attempt in found} == {1} or not rabbitmq.knows("4.3")


def test_large_jobs_pass_between_small_ones(provisioned, start, notes) -> None:
    daemon = start(*WORKER)
    sizes = [0, 1_000, 40_000, 1_000_000]
    publish(
        provisioned, *(("test.quick", (number, "x" * sizes[number % 4])) for number in range(40))
    )
    until(lambda: len(runs(notes)) == 40, timeout_s=60, what="all of them")
    found = sorted(tuple(map(int, line.split())) for line in notes.read_text().splitlines())
    assert found == [(number, 1, sizes[number % 4]) for number in range(40)]
    assert daemon.stop() == 0
    assert left(provisioned) == 0


def test_calls_are_answered_over_tls_as_well(
    provisioned, start, notes, env, certificate, tls_port
) -> None:
    address = provisioned.address
    env["RABBITRY_URL"] = (
        f"amqps://{address.user}:{address.password}@127.0.0.1:{tls_port}/{address.vhost_name}"
        f"?cacertfile={certificate}"
    )
    start(*WORKER)
    with Caller(provisioned.topology, provisioned.url) as caller:
        assert list(caller.map("demo.echo", range(500), timeout_s=60)) == list(range(500))
