"""Workers answer calls: each once, with news where they are wanted, whoever has gone meanwhile."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from broker.errors import RemoteError
from broker.management import Management
from broker.reply import MESSAGE_BYTES, Accepted, Progress, Reply
from producers.caller import Caller
from tests.asking import Asker
from tests.end_to_end.test_worker import plain_celery
from tests.integration.conftest import Provisioned
from tests.provision import QUICK, provision, ready_in, topology_of
from tests.waiting import until

TASKS = """
import os, threading, time
import numpy as np
from consumers.job import current_job, job

class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(one)
        self.lock = threading.Lock()
    def __str__(self):
        raise RuntimeError("no words")

@job("test.steps")
def steps(count: int):
    for step in range(count):
        current_job().progress((step + 1) / count, text=f"step {step + 1}")
        current_job().progress(partial=np.arange(step))
    current_job().progress(0.5)
    current_job().progress(1.0)
    return count

@job("test.update", bind=True)
def update(self, value: object):
    self.update_state(state="PROGRESS", meta={"fraction": 0.5, "text": "half"})
    return value

@job("test.odd")
def odd():
    raise Odd("a", "b")

@job("test.nested")
def nested():
    try:
        {}["missing"]
    except KeyError as exc:
        raise ValueError("x" * 100_000) from exc

@job("test.large")
def large(size: int):
    return np.zeros(size, np.uint8)

@job("test.unsendable")
def unsendable():
    return threading.Lock()

@job("test.when")
def when(path: str, value: object):
    while not os.path.exists(path):
        time.sleep(0.01)
    return value
"""
NAMES = ("steps", "update", "odd", "nested", "large", "unsendable", "when")
JOBS = "".join(
    f'  test.{name}: {{task: "answers:{name}", exchange: jobs, routing_key: normal.test.{name}}}\n'
    for name in NAMES
)
SLOTS = {"prefork": 2, "threads": 2, "solo": 1, "gevent": 2}
WORKERS = "".join(
    f"  {pool}: {{queues: [jobs.normal], pool: {pool}, concurrency: {slots}, prefetch: 64}}\n"
    for pool, slots in SLOTS.items()
)
MIB = 2**20


@pytest.fixture
def provisioned(rabbitmq, vhost, tmp_path, monkeypatch) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    head = dedent(QUICK).partition("workers:")[0]
    topology, path = topology_of(tmp_path, head.rstrip() + "\n" + JOBS + "workers:\n" + WORKERS)
    (tmp_path / "answers.py").write_text(TASKS)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


@pytest.fixture
def env(env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return {**env, "PYTHONPATH": str(tmp_path)}


@pytest.fixture(params=["prefork"])
def daemon(request, start):
    return start(sys.executable, "-m", "rabbitry", "worker", "run", request.param)


@pytest.mark.parametrize("daemon", list(SLOTS), indirect=True)
def test_a_call_that_asks_is_told_how_far_it_is(provisioned, daemon) -> None:
    with Asker(provisioned.address) as asker:
        asker.ask("test.steps", 5, id="asked", news=True)
        accepted, *news, reply = asker.until_ended()
        asker.answers.clear()
        asker.ask("test.steps", 5, id="quiet")
        [quiet] = asker.until_ended()
    assert isinstance(accepted, Accepted)
    assert accepted.worker == reply.worker
    assert accepted.started_ms == reply.started_ms
    assert all(isinstance(each, Progress) and each.task_id == "asked" for each in news)
    assert [len(each.partial) for each in news if each.partial is not None] == [0, 1, 2, 3, 4]
    fractions = [each.fraction for each in news if each.fraction is not None]
    assert fractions[0] == 0.2
    assert fractions[-1] == 1.0
    assert (reply.result, quiet.result) == (5, 5)


def test_a_plain_celery_client_gets_results_errors_and_progress(provisioned, daemon, env) -> None:
    expression = (
        "[send('test.update', (7,), queue='jobs.normal').get(timeout=20),"
        " send('test.update', ('x',), queue='jobs.normal').get("
        "timeout=20, on_message=lambda meta: print(meta['status']))]"
    )
    assert plain_celery(env, expression).splitlines() == ["PROGRESS", "SUCCESS", "[7, 'x']"]
    failing = "repr(send('test.nested', queue='jobs.normal').get(timeout=20, propagate=False))[:30]"
    assert plain_celery(env, failing).startswith("ValueError('xxx")
    # To a call of ours that asks Celery's own word for progress is the same.
    with Asker(provisioned.address) as asker:
        asker.ask("test.update", 1, id="asked", news=True)
        accepted, half, reply = asker.until_ended()
        asker.answers.clear()
        asker.ask("test.update", 2, id="quiet")
        assert [each.result for each in asker.until_ended()] == [2]
    assert isinstance(accepted, Accepted)
    assert half == Progress("asked", 0.5, "half")
    assert reply.result == 1


def test_errors_come_back_by_name_and_text_however_odd(provisioned, daemon) -> None:
    with Caller(provisioned.topology, provisioned.url) as caller:
        with pytest.raises(RemoteError) as odd:
            caller.call("test.odd", timeout_s=20)
        with pytest.raises(RemoteError) as nested:
            caller.call("test.nested", timeout_s=20)
        with pytest.raises(RemoteError) as unsendable:
            caller.call("test.unsendable", timeout_s=20)
        assert caller.call("demo.add", 1, 2, timeout_s=20) == 3
    assert odd.value.remote_class == "answers.Odd"
    assert odd.value.remote_message == "<Odd that cannot be written as text>"
    assert "raise Odd" in odd.value.remote_traceback
    assert nested.value.remote_class == "ValueError"
    assert 0 < len(nested.value.remote_message) <= MESSAGE_BYTES
    assert "KeyError: 'missing'" in nested.value.remote_traceback
    assert "cannot be put into a reply" in unsendable.value.remote_message


def test_arrays_come_back_bit_for_bit_several_in_one_call(provisioned, daemon) -> None:
    arrays: list[Any] = [
        np.array(2.5, ">f4"),
        np.zeros((0, 3), "c16"),
        np.arange(24).reshape(4, 6)[:, ::-2],
        np.array([(1, b"x")], [("number", "<i2"), ("text", "S3")]),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.random.default_rng(1).random(100_000),
    ]
    with Caller(provisioned.topology, provisioned.url) as caller:
        back = caller.call("demo.echo", {"all": arrays}, timeout_s=20)["all"]
    for sent, got in zip(arrays, back, strict=True):
        assert (got.dtype, got.shape, got.tobytes()) == (sent.dtype, sent.shape, sent.tobytes())


def test_a_result_larger_than_rabbitmq_takes_is_an_error_on_both_sides(provisioned, daemon) -> None:
    with Caller(provisioned.topology, provisioned.url) as caller:
        assert len(caller.call("test.large", 12 * MIB, timeout_s=60)) == 12 * MIB
        beside = caller.submit("demo.echo", "fine", timeout_s=60)
        with pytest.raises(RemoteError, match=rf"takes messages of at most {16 * MIB} ") as caught:
            caller.call("test.large", 17 * MIB, timeout_s=60)
        assert caught.value.remote_class == "consumers.replies.ResultTooLarge"
        assert beside.result() == "fine"
        # What RabbitMQ takes is known from now on.
        with pytest.raises(RemoteError, match=f"{16 * MIB}"):
            caller.call("test.large", 17 * MIB, timeout_s=60)
    until(lambda: "ResultTooLarge" in daemon.log, timeout_s=10, what="the error in the log")


@pytest.mark.parametrize("daemon", ["threads"], indirect=True)
def test_a_caller_that_is_gone_costs_its_own_replies_only(provisioned, daemon, tmp_path) -> None:
    go = tmp_path / "go"
    with (
        Asker(provisioned.address) as direct,
        Asker(provisioned.address, queue="gone") as queued,
    ):
        for number in range(5):
            direct.ask("test.when", str(go), number, id=f"direct-{number}")
            queued.ask("test.when", str(go), number, id=f"queued-{number}")
    with Asker(provisioned.address) as asker:
        asker.ask("test.when", str(go), "mine", id="mine")
        go.touch()
        [reply] = asker.until_ended()
    assert reply.result == "mine"
    until(
        lambda: daemon.log.count("the reply to call queued-") == 5,
        timeout_s=10,
        what="the dropped replies in the log",
    )
    assert ready_in(provisioned.address, "jobs.normal") == 0


def test_a_reply_whose_connection_is_lost_is_sent_on_the_next(
    provisioned, daemon, tmp_path
) -> None:
    address, go = provisioned.address, tmp_path / "go"

    def senders(management: Management) -> list[str]:
        # What is only just opened has no name yet.
        return [
            name
            for each in management.get("channels")
            if each.get("vhost") == address.vhost_name and each.get("confirm")
            if (name := each.get("connection_details", {}).get("name"))
        ]

    with Asker(address) as asker, Management(address) as management:
        for number in range(10):
            asker.ask("demo.echo", number, id=f"before-{number}")
        asker.until_ended(10)
        names = until(lambda: senders(management), timeout_s=30, what="the sender to be listed")
        for number in range(10):
            asker.ask("test.when", str(go), number, id=f"after-{number}")
        for name in names:
            management.delete("connections", name)
        go.touch()
        asker.until_ended(20)
    ended = [id for id, answer in asker.answers if isinstance(answer, Reply)]
    assert sorted(ended) == sorted(f"{when}-{n}" for when in ("before", "after") for n in range(10))
