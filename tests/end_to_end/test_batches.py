"""Batches in a real worker: each message has its own ending, whatever becomes of its neighbours."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from broker import case_file
from broker.body import JSON, Body
from broker.confirmed import ConfirmedChannel
from broker.errors import RemoteError
from broker.management import Management
from broker.message import Message
from producers.caller import Caller, Job
from producers.publisher import Publisher
from tests.integration.conftest import Provisioned
from tests.letters import inside
from tests.provision import QUICK, provision, ready_in, topology_of
from tests.waiting import until

TASKS = """
import os, signal, time
import numpy as np
from consumers.job import GiveUp, TryAgain, current_job, current_jobs, job

def note(*words):
    # One write, so that lines of several processes do not mix.
    with open(os.environ["NOTES"], "ab", buffering=0) as file:
        file.write((" ".join(map(str, words)) + "\\n").encode())

@job("test.mixed", batch=20, wait="500ms", give_up_on=[LookupError])
def mixed(kind: list[str]) -> list[object]:
    assert current_job() is None
    note("call", len(kind))
    return [end(each, job) for each, job in zip(kind, current_jobs(), strict=True)]

def end(kind, job):
    if kind == "again" and job.attempt == 1 or kind == "never":
        return TryAgain("not now")
    if kind == "hopeless":
        return GiveUp("not ever")
    if kind == "lookup":
        return KeyError("nowhere")
    if kind == "odd":
        return object()
    note("done", job.id)
    return f"{kind} of {job.id}, attempt {job.attempt}"

@job("test.all", batch=20, wait="200ms")
async def all_(value: list[int]) -> list[int]:
    note("call", len(value))
    if len(value) > 1:
        raise RuntimeError("too many at once")
    note("done", value[0])
    return value

@job("test.poison", batch=100, wait="500ms")
def poison(value: list[int]) -> None:
    if 13 in value:
        os.kill(os.getpid(), signal.SIGKILL)
    for each in value:
        note("done", each)

@job("test.slow", batch=5, wait="500ms")
def slow(value: list[int]) -> None:
    if 3 in value:
        time.sleep(60)
    for each in value:
        note("done", each)

@job("test.load", batch=50, wait="5ms")
def load(value: list[int]) -> None:
    time.sleep(0.05)
    note(*(f"done {each}\\n" for each in value))

@job("test.mean", batch=5, wait="30s")
def mean(series: np.ndarray) -> np.ndarray:
    note("call", *series.shape)
    return series.mean(axis=1)

@job("test.short", batch=2, wait="10s")
def short(value: list[int]) -> list[int]:
    return value + value

@job("test.held", batch=5, wait="2s")
def held(value: list[int]) -> None:
    note("call", len(value))
    deadline = time.monotonic() + 60
    while not os.path.exists(os.environ["NOTES"] + ".go") and time.monotonic() < deadline:
        time.sleep(0.02)
    for each in value:
        note("done", each)

@job("test.wait", batch=100, wait="300ms")
def wait(value: list[int]) -> list[int]:
    return [len(value)] * len(value)
"""
FUNCTIONS = {"all": "all_"}
NAMES = ("mixed", "all", "poison", "slow", "load", "mean", "short", "wait", "held")
JOBS = "".join(
    f'  test.{name}: {{task: "batchy:{FUNCTIONS.get(name, name)}", exchange: jobs,'
    f" routing_key: normal.test.{name}}}\n"
    for name in NAMES
)
WORKERS = """workers:
  normal: {queues: [jobs.normal], concurrency: 2}
  threads: {queues: [jobs.normal], concurrency: 2, pool: threads}
  solo: {queues: [jobs.normal], pool: solo}
  limited: {queues: [jobs.normal], concurrency: 2, time_limit: 3s}
  narrow: {queues: [jobs.normal], concurrency: 2, prefetch: 4}
"""


@pytest.fixture
def provisioned(rabbitmq, vhost, tmp_path, monkeypatch) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    head = dedent(QUICK).partition("workers:")[0]
    topology, path = topology_of(tmp_path, head.rstrip() + "\n" + JOBS + WORKERS)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


@pytest.fixture
def notes(tmp_path: Path, env: dict[str, str]) -> Path:
    (tmp_path / "batchy.py").write_text(TASKS)
    path = tmp_path / "notes"
    path.touch()
    env["NOTES"] = str(path)
    return path


@pytest.fixture
def run(start, notes):
    return lambda name="normal": start(sys.executable, "-m", "rabbitry", "worker", "run", name)


def publish(provisioned: Provisioned, *jobs: Job) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        for receipt in list(publisher.publish_many(jobs)):
            receipt.wait()


def words(notes: Path, word: str) -> Counter[str]:
    """Return what was noted under a word, and how often."""
    lines = [line.split() for line in notes.read_text().splitlines()]
    return Counter(line[1] for line in lines if line[:1] == [word])


def dead(provisioned: Provisioned, count: int) -> dict[str, tuple[str, int, str]]:
    """Wait for so many dead letters; return reason, attempt and error of each."""
    until(
        lambda: ready_in(provisioned.address, "jobs.dead") >= count,
        timeout_s=60,
        what=f"{count} dead letters",
    )
    found = {}
    for letter in inside(provisioned.address, "jobs.dead"):
        case = case_file.of(letter.headers)
        assert case is not None
        found[letter.id] = (str(case.reason), case.attempt, case.error.rpartition(".")[2])
    return found


def test_every_message_of_a_batch_ends_by_itself_and_none_twice(provisioned, run, notes) -> None:
    kinds = ["fine", "again", "never", "hopeless", "lookup", "fine", "fine"]
    publish(
        provisioned,
        *(Job("test.mixed", (kind,), id=f"{kind}-{n}") for n, kind in enumerate(kinds)),
        Job("test.mixed", (5,), id="misfit"),
        Job("test.mixed", ("fine",), id="late", deadline_s=0.001),
    )
    confirmed = ConfirmedChannel(provisioned.address)
    odd = Message(
        "undecodable",
        Body(b"[[", JSON, "utf-8"),
        {"task": "test.mixed", "id": "undecodable"},
        {"message_id": "undecodable", "delivery_mode": 2},
    )
    confirmed.publish(odd, exchange="jobs", routing_key="normal.test.mixed").wait()
    confirmed.close()
    daemon = run()
    with Caller(provisioned.topology, provisioned.url) as caller:
        calls = {
            kind: caller.submit("test.mixed", kind, timeout_s=60)
            for kind in ("fine", "hopeless", "never", "odd")
        }
        assert calls["fine"].result().startswith("fine of ")
        for kind, error in (("hopeless", "GiveUp"), ("never", "TryAgain"), ("odd", "EncodeError")):
            failed = calls[kind].exception(timeout=60)
            assert isinstance(failed, RemoteError)
            assert error in str(failed)
        misfit = caller.submit("test.mixed", 5, timeout_s=60).exception(timeout=60)
        assert "argument 'kind'" in str(misfit)
    found = dead(provisioned, 6)
    assert found == {
        "never-2": ("limit", 3, "TryAgain"),
        "hopeless-3": ("given-up", 1, "GiveUp"),
        "lookup-4": ("given-up", 1, "KeyError"),
        "misfit": ("arguments", 1, "InvalidArguments"),
        "late": ("deadline", 1, "DeadlinePassed"),
        "undecodable": ("undecodable", 1, "DecodeError"),
    }
    until(lambda: words(notes, "done")["again-1"], timeout_s=30, what="the one that is tried again")
    done = words(notes, "done")
    assert {id: done[id] for id in ("fine-0", "again-1", "fine-5", "fine-6")} == dict.fromkeys(
        ("fine-0", "again-1", "fine-5", "fine-6"), 1
    )
    assert set(words(notes, "call")) > {"1"}, "there was no batch"
    assert daemon.stop() == 0
    assert ready_in(provisioned.address, "jobs.normal") == 0
    assert ready_in(provisioned.address, "jobs.dead") == 6


def test_an_error_of_the_whole_call_counts_for_each_and_then_each_runs_alone(
    provisioned, run, notes
) -> None:
    publish(provisioned, *(Job("test.all", (n,), id=str(n)) for n in range(10)))
    daemon = run()
    until(lambda: len(words(notes, "done")) == 10, timeout_s=60, what="all alone")
    assert words(notes, "call") == {"10": 1, "1": 10}
    assert words(notes, "done") == dict.fromkeys(map(str, range(10)), 1)
    assert daemon.log.count("Traceback") == 1
    assert daemon.stop() == 0
    assert ready_in(provisioned.address, "jobs.dead") == 0


def test_poison_among_a_hundred_dies_alone(provisioned, run, notes) -> None:
    publish(provisioned, *(Job("test.poison", (n,), id=str(n)) for n in range(100)))
    daemon = run()
    assert dead(provisioned, 1) == {"13": ("killed", 3, "WorkerLostError")}
    until(lambda: len(words(notes, "done")) == 99, timeout_s=60, what="its neighbours")
    assert words(notes, "done") == {str(n): 1 for n in range(100) if n != 13}
    assert daemon.stop() == 0
    assert ready_in(provisioned.address, "jobs.normal") == 0
    assert ready_in(provisioned.address, "jobs.dead") == 1


def test_who_is_too_slow_is_found_alone(provisioned, run, notes) -> None:
    publish(provisioned, *(Job("test.slow", (n,), id=str(n)) for n in range(5)))
    daemon = run("limited")
    assert dead(provisioned, 1) == {"3": ("time-limit", 2, "TimeLimitExceeded")}
    until(lambda: len(words(notes, "done")) == 4, timeout_s=60, what="its neighbours")
    assert words(notes, "done") == {"0": 1, "1": 1, "2": 1, "4": 1}
    assert daemon.stop() == 0


@pytest.mark.parametrize("name", ["normal", "threads", "solo"])
def test_a_stop_in_the_middle_loses_nothing_and_runs_nothing_twice(
    rabbitmq, provisioned, run, notes, name
) -> None:
    publish(provisioned, *(Job("test.load", (n,), id=str(n)) for n in range(3000)))
    daemon = run(name)
    until(lambda: len(words(notes, "done")) >= 200, timeout_s=60, what="some of the load")
    assert daemon.stop() == 0
    done = words(notes, "done")
    assert set(done.values()) == {1}
    until(
        lambda: len(done) + ready_in(provisioned.address, "jobs.normal") == 3000,
        timeout_s=20,
        what="the rest to be back in its queue",
    )
    assert len(done) < 3000, "it stopped after the load"
    assert ready_in(provisioned.address, "jobs.dead") == 0
    headers = [each.headers for each in inside(provisioned.address, "jobs.normal")]
    counts = {each.get("x-delivery-count", 0) for each in headers}
    # Before 4.3 RabbitMQ counts whatever comes back.
    assert counts <= {0} or not rabbitmq.knows("4.3"), "a return was counted"


@pytest.mark.parametrize("name", ["normal", "threads", "solo"])
def test_a_full_batch_does_not_wait_and_arrays_come_as_one(provisioned, run, notes, name) -> None:
    run(name)
    with Caller(provisioned.topology, provisioned.url) as caller:
        calls = [caller.submit("test.mean", np.full(3, n), timeout_s=25) for n in range(5)]
        assert [call.result() for call in calls] == [0, 1, 2, 3, 4]
        shapes = [np.zeros(2), np.zeros(2), np.zeros(7), np.zeros((4, 2)), np.zeros(2)]
        calls = [caller.submit("test.mean", each, timeout_s=25) for each in shapes]
        # The mean along the second axis is a row for the one that has two.
        assert [np.shape(call.result()) for call in calls] == [(), (), (), (2,), ()]
    lines = sorted(notes.read_text().splitlines())
    assert lines == ["call 1 4 2", "call 1 7", "call 3 2", "call 5 3"]


def test_a_lost_connection_makes_nothing_of_a_batch_run_again(provisioned, run, notes) -> None:
    publish(provisioned, *(Job("test.held", (n,), id=str(n)) for n in range(5)))
    daemon = run()
    until(lambda: words(notes, "call")["5"], timeout_s=30, what="the batch to run")
    with Management(provisioned.address) as management:

        def closed() -> bool:
            # Its statistics know a connection some seconds after it is there.
            for each in management.get("connections"):
                if each["vhost"] == provisioned.address.vhost_name:
                    management.delete("connections", each["name"])
            return daemon.log.count("still runs here") >= 5

        until(closed, timeout_s=60, what="the messages to come back")
    notes.with_name("notes.go").touch()
    until(lambda: len(words(notes, "done")) == 5, timeout_s=30, what="its end")
    assert daemon.stop() == 0
    assert words(notes, "done") == {str(n): 1 for n in range(5)}
    assert words(notes, "call") == {"5": 1}
    assert ready_in(provisioned.address, "jobs.normal") == 0
    assert ready_in(provisioned.address, "jobs.dead") == 0


def test_one_message_waits_as_long_as_the_job_says_and_no_longer(provisioned, run) -> None:
    run()
    with Caller(provisioned.topology, provisioned.url) as caller:
        waits = []
        for n in range(3):
            began = time.monotonic()
            assert caller.call("test.wait", n, timeout_s=20) == 1
            waits.append(time.monotonic() - began)
    assert min(waits) >= 0.3
    # Celery's event loop by itself would look a second later, or more.
    assert min(waits) < 0.9


def test_a_wrong_number_of_results_is_given_up_with_the_numbers(provisioned, run) -> None:
    publish(provisioned, *(Job("test.short", (n,), id=str(n)) for n in range(2)))
    daemon = run()
    assert dead(provisioned, 2) == {
        "0": ("given-up", 1, "WrongResults"),
        "1": ("given-up", 1, "WrongResults"),
    }
    assert "batch job 'test.short' returned 4 results for 2 messages" in daemon.log


def test_a_prefetch_that_keeps_batches_small_is_told_of(provisioned, run, notes) -> None:
    publish(provisioned, *(Job("test.load", (n,), id=str(n)) for n in range(20)))
    daemon = run("narrow")
    until(lambda: len(words(notes, "done")) == 20, timeout_s=30, what="all of them")
    assert "batches of job test.load will not be full" in daemon.log
    assert "has up to 50 messages" in daemon.log
