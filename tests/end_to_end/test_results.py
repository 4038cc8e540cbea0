"""Results that outlive their caller: kept in a real Redis, read elsewhere, gone in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from textwrap import dedent

import numpy as np
import pytest
from celery import Celery
from celery.result import AsyncResult

from broker import case_file
from broker.errors import RemoteError
from broker.stored import NoResult, connect
from producers.caller import Caller
from producers.publisher import Publisher
from producers.results import Results
from tests.integration.conftest import Provisioned
from tests.letters import inside
from tests.provision import provision, ready_in, topology_of
from tests.waiting import until

TASKS = """
from celery import shared_task
import numpy as np
from consumers.job import job

@job("kept.add")
def add(a: int, b: int) -> int:
    return a + b

@job("kept.total")
def total(numbers: list) -> int:
    return sum(numbers)

@job("kept.whole")
def whole(numbers: list) -> list:
    return numbers

@job("kept.noise")
def noise(seed: int) -> dict:
    generator = np.random.default_rng(seed)
    series = generator.standard_normal(1000)
    series[0] = np.nan
    return {"series": series, "flags": generator.integers(0, 2, (3, 4)).astype(">u2"),
            "empty": np.empty((0, 3), "f4"), "zero": np.array(7, "i8")}

@job("kept.scaled")
def scaled(noise: dict) -> np.ndarray:
    return noise["series"] * 2

@job("kept.echo")
def echo(value):
    return value

@job("kept.fail")
def fail(message: str) -> None:
    raise LookupError(message)

@job("kept.odd")
def odd() -> object:
    print("an odd job runs")
    return object()

@job("kept.brief")
def brief() -> str:
    return "gone soon"

@job("loose.add")
def loose(a: int, b: int) -> int:
    return a + b
"""
KEPT = ("add", "total", "whole", "noise", "scaled", "echo", "fail", "odd", "brief")
TEXT = (
    """
version: 1
name: kept
exchanges:
  jobs: {type: topic}
  jobs.dead: {type: topic}
queues:
  jobs.normal:
    bindings: [{exchange: jobs, routing_key: "#"}]
    retry: {delay: 100ms, max_delay: 200ms, limit: 2}
    dead_letter: {exchange: jobs.dead}
    overflow: reject-publish
  jobs.dead: {bindings: [{exchange: jobs.dead, routing_key: "#"}], delivery_limit: -1}
"""
    + "jobs:\n"
    + "".join(
        f"  kept.{name}: {{task: 'keeping:{name}', exchange: jobs, routing_key: k, store: true}}\n"
        for name in KEPT
    )
    + """\
  loose.add: {task: "keeping:loose", exchange: jobs, routing_key: k}
workers:
  normal: {queues: [jobs.normal]}
  threads: {queues: [jobs.normal], pool: threads}
"""
)
RESULTS = 'results: {backend: "${KEPT_IN}", expires: 1h}\n'

Client = Callable[[str], str]


@pytest.fixture
def provisioned(rabbitmq, redis, vhost, tmp_path, monkeypatch, request) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    # Where the worker, the command and this process look it up.
    monkeypatch.setenv("KEPT_IN", redis.url)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "keeping.py").write_text(TASKS)
    results = getattr(request, "param", RESULTS)
    text = TEXT if results else TEXT.replace(", store: true", "")
    topology, path = topology_of(tmp_path, text + results)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


@pytest.fixture
def client(provisioned, env, tmp_path) -> Client:
    """Run a program that has the Celery application; returns what it prints."""

    def run(program: str) -> str:
        text = "from consumers.app import app\nimport keeping\n" + dedent(program)
        done = subprocess.run(
            [sys.executable, "-c", text],
            env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def test_a_result_is_read_from_other_processes_bit_for_bit(
    provisioned, redis, worker, client, rabbitry, tmp_path
) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        id = publisher.publish("kept.noise", 5).message_id
    with Results(provisioned.topology) as results:
        found = results.get(id, timeout_s=30)
    sys.path.insert(0, str(tmp_path))
    import keeping

    expected = keeping.noise.run(5)
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
    printed = client(f"""
        from celery.result import AsyncResult
        found = AsyncResult({id!r}, app=app)
        series = found.get(timeout=30)["series"]
        print(found.state, found.name, series.dtype, series.tobytes().hex())
    """)
    assert printed == f"SUCCESS kept.noise float64 {expected['series'].tobytes().hex()}"
    done = rabbitry("jobs", "result", id, "--topology", provisioned.path, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["id"], document["outcome"]) == (id, "result")
    assert np.array_equal(document["result"]["flags"], expected["flags"])
    with Caller(provisioned.topology, provisioned.url) as caller:
        kept = caller.submit("kept.add", 1, 2, timeout_s=30)
        loose = caller.submit("loose.add", 1, 2, timeout_s=30)
        assert (kept.result(), loose.result()) == (3, 3)
    # Replied to, and kept as well; a Celery client that knows nothing of us reads it.
    with Results(provisioned.topology) as results:
        assert results.get(kept.id, timeout_s=30) == 3
        plain = Celery(broker=provisioned.url, backend=redis.url)
        assert AsyncResult(kept.id, app=plain).get(timeout=30) == 3
        plain.close()
        with pytest.raises(NoResult, match=r"store: true"):
            results.get(loose.id)


@pytest.mark.parametrize("pool", ["normal", pytest.param("threads", marks=pytest.mark.soak)])
def test_chain_group_and_chord_of_celerys(start, client, pool) -> None:
    start(sys.executable, "-m", "rabbitry", "worker", "run", pool)
    printed = client("""
        from celery import chain, chord, group
        import numpy as np
        add, total, noise, scaled = keeping.add, keeping.total, keeping.noise, keeping.scaled
        print(chain(add.s(1, 2), add.s(10), keeping.loose.s(20), add.s(30))().get(timeout=40))
        print(group(add.s(n, n) for n in range(20))().get(timeout=40) == list(range(0, 40, 2)))
        print(chord([add.s(n, n) for n in range(20)])(total.s()).get(timeout=40))
        # Parts need not be kept; a group that goes on in a task is a chord as well.
        print((group(keeping.loose.s(n, 1) for n in range(20)) | total.s())().get(timeout=40))
        parts = [group(add.s(1, 1), add.s(2, 2)), add.s(3, 3)]
        # Celery makes one header of both, in an order of its own.
        print(sorted(chord(parts)(keeping.whole.s()).get(timeout=40)))
        loose = keeping.loose
        parts = [chain(loose.s(1, 2), group(loose.s(1), loose.s(2))), loose.s(5, 5)]
        print(chord(parts)(keeping.whole.s()).get(timeout=40))
        found = chain(noise.s(3), scaled.s())().get(timeout=40)
        print(found.tobytes() == (noise.run(3)["series"] * 2).tobytes())
        # What is not kept says so at once, as Celery does.
        print(keeping.loose.delay(1, 2).get(timeout=40))
    """)
    assert printed.splitlines() == [
        *("63", "True", "380", "210", "[2, 4, 6]", "[[4, 5], 10]"),
        *("True", "None"),
    ]


def test_what_fails_is_kept_when_it_is_over_and_a_chord_of_it_fails(
    provisioned, worker, client, rabbitry
) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        id = publisher.publish("kept.fail", "no luck").message_id
    with Results(provisioned.topology) as results, pytest.raises(RemoteError) as caught:
        results.get(id, timeout_s=40)
    error = caught.value
    assert (error.job, error.message_id) == ("kept.fail", id)
    assert (error.remote_class, error.remote_message) == ("LookupError", "no luck")
    assert "raise LookupError(message)" in error.remote_traceback
    # Not before its third and last attempt.
    assert worker.log.count("no luck") >= 3
    done = rabbitry("jobs", "result", id, "--topology", provisioned.path)
    assert done.returncode == 1
    assert done.stderr == "Error: job 'kept.fail' failed in the worker: LookupError: no luck\n"
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        odd = publisher.publish("kept.odd").message_id
    with Results(provisioned.topology) as results, pytest.raises(RemoteError, match="is not JSON"):
        results.get(odd, timeout_s=40)
    until(lambda: ready_in(provisioned.address, "jobs.dead") == 2, timeout_s=40, what="its end")
    # What cannot be kept is the same next time.
    assert worker.log.count("an odd job runs") == 1
    printed = client(f"""
        from celery import chord
        from celery.result import AsyncResult
        failed = AsyncResult({id!r}, app=app)
        try:
            failed.get(timeout=30)
        except LookupError as exc:
            print(failed.state, repr(exc))
        body = chord([keeping.add.s(1, 1), keeping.fail.s("again")])(keeping.total.s())
        try:
            body.get(timeout=40)
        except LookupError as exc:
            print(repr(exc))
        # The error of the header's part comes first; the body has one, too.
        print(type(body.get(propagate=False, timeout=40)).__name__)
    """)
    assert printed.splitlines() == [
        "FAILURE LookupError('no luck')",
        "LookupError('again')",
        "ChordError",
    ]


BRIEF = 'results: {backend: "${KEPT_IN}", expires: 2s}\n'


@pytest.mark.parametrize("provisioned", [BRIEF], indirect=True)
def test_a_result_expires_when_stated(provisioned, redis, worker, rabbitry) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        id = publisher.publish("kept.brief").message_id
    with Results(provisioned.topology) as results:
        assert results.get(id, timeout_s=30) == "gone soon"
        with connect(redis.url) as client:
            assert client.pttl(f"celery-task-meta-{id}") <= 2000

        def gone() -> bool:
            try:
                return not results.get(id)
            except NoResult:
                return True

        until(gone, timeout_s=10, what="its time to be over")
    done = rabbitry("jobs", "result", id, "--topology", provisioned.path, "--json")
    assert done.returncode == 6
    assert json.loads(done.stdout)["outcome"] == "unknown"
    assert f"job {id!r} has no result" in done.stderr


@pytest.mark.parametrize("provisioned", [""], indirect=True)
def test_without_results_a_chain_works_and_a_chord_says_what_it_takes(start, client) -> None:
    start(sys.executable, "-m", "rabbitry", "worker", "run", "threads")
    printed = client("""
        from celery import chain, chord
        add, total, noise, scaled = keeping.add, keeping.total, keeping.noise, keeping.scaled
        print(chain(add.s(1, 2), add.s(10), add.s(20))().get(timeout=40))
        found = chain(noise.s(3), scaled.s())().get(timeout=40)
        print(found.tobytes() == (noise.run(3)["series"] * 2).tobytes())
        try:
            chord([add.s(1, 1), add.s(2, 2)])(total.s())
        except NotImplementedError as exc:
            print(exc)
    """)
    assert printed.splitlines() == [
        "33",
        "True",
        "a chord keeps what its parts return: add `results: {backend: redis://HOST:6379/0}` to the"
        " topology",
    ]


PICKLE = 'results: {backend: "${KEPT_IN}", serializer: pickle}\naccept: [pickle]\n'
PICKLED = """
    for name in ("add", "echo"):
        app.send_task(
            f"kept.{name}",
            (1, 2) if name == "add" else ({1, 2},),
            task_id=name,
            serializer="pickle",
        )
"""


@pytest.mark.parametrize("provisioned", [PICKLE], indirect=True)
def test_pickle_is_read_and_kept_where_the_file_says_so(
    provisioned, start, client, env, rabbitry, tmp_path
) -> None:
    if os.geteuid() == 0:
        refused = rabbitry("worker", "run", "normal", "--topology", provisioned.path, cwd=tmp_path)
        assert refused.returncode == 1
        assert "C_FORCE_ROOT" in refused.stderr
        env["C_FORCE_ROOT"] = "true"
    start(sys.executable, "-m", "rabbitry", "worker", "run", "normal")
    client(PICKLED)
    with Results(provisioned.topology) as results:
        assert results.get("add", timeout_s=40) == 3
        # No JSON would have it.
        assert results.get("echo", timeout_s=40) == {1, 2}


def test_pickle_is_refused_elsewhere(provisioned, redis, worker, client) -> None:
    with connect(redis.url) as unreadable:
        # As of a time when results were pickled.
        unreadable.set("celery-task-meta-add", b"\x80\x05N.")
    client(PICKLED)
    until(
        lambda: ready_in(provisioned.address, "jobs.dead") == 2, timeout_s=40, what="dead letters"
    )
    cases = [case_file.of(each.headers) for each in inside(provisioned.address, "jobs.dead")]
    assert [case.reason for case in cases if case is not None] == ["content-type"] * 2
    # Who reads its result hears of it.
    with Results(provisioned.topology) as results, pytest.raises(RemoteError, match="not read"):
        results.get("add", timeout_s=20)


def test_a_job_that_is_cancelled_before_it_begins_has_that_for_a_result(
    provisioned, start, rabbitry, env
) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("kept.add", 1, 2, id="unwanted").wait()
    done = rabbitry("jobs", "cancel", "unwanted", "--topology", provisioned.path)
    assert done.returncode == 0, done.stderr
    start(sys.executable, "-m", "rabbitry", "worker", "run", "threads")
    read = rabbitry(
        *("jobs", "result", "unwanted", "--wait", "30s", "--json"),
        *("--topology", provisioned.path),
    )
    assert json.loads(read.stdout)["outcome"] == "cancelled", read.stderr


@pytest.mark.parametrize("provisioned", [RESULTS], indirect=True)
def test_a_worker_that_redis_refuses_does_not_start(
    provisioned, redis, rabbitry, tmp_path, env
) -> None:
    env["KEPT_IN"] = redis.url.replace(redis.password, "wr0ng-password")
    done = rabbitry("worker", "run", "normal", "--topology", provisioned.path, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: the results in redis://127.0.0.1:")
    assert "wr0ng" not in line
    read = rabbitry("jobs", "result", "x", "--topology", provisioned.path)
    assert read.returncode == 4
    assert "wr0ng" not in read.stderr
