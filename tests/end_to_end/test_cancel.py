"""What nobody wants any more: running jobs see it, waiting ones are not begun, nothing is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest

from broker.cancellation import CallCancelled
from broker.errors import CallTimeout
from producers.caller import Caller
from producers.cancel import Canceller
from producers.publisher import Publisher
from tests.end_to_end.cancelling import Bench, bench, provisioned_with
from tests.integration.conftest import Provisioned
from tests.probes import ANYWHERE, Probe
from tests.provision import ready_in
from tests.waiting import until

__all__ = ["bench"]


@pytest.fixture
def provisioned(rabbitmq, vhost, tmp_path, monkeypatch, request) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    options = getattr(request, "param", {})
    return provisioned_with(rabbitmq, vhost, tmp_path, more=f", health: '{ANYWHERE}'", **options)


def cancel(bench: Bench, *ids: str) -> None:
    canceller = Canceller(bench.topology, bench.address)
    try:
        for receipt in [canceller.cancel(id) for id in ids]:
            receipt.wait()
    finally:
        canceller.close()


@pytest.mark.parametrize("provisioned", [{"pool": "prefork"}, {"pool": "threads"}], indirect=True)
def test_a_job_that_runs_sees_that_it_is_cancelled_and_ends_as_it_likes(bench: Bench) -> None:
    worker = bench.worker()
    with Publisher(bench.topology, bench.url) as publisher:
        publisher.publish("test.obey", id="obeys").wait()
        publisher.publish("test.finish", id="finishes").wait()
    bench.noted("begun", 2)
    cancelled_at = time.time()
    cancel(bench, "obeys", "finishes", "of nobody")
    seen = bench.noted("seen", 2)
    # 0.2 s where the machine has nothing else to do.
    assert max(note["at"] for note in seen) - cancelled_at < 2
    probe = Probe.of_log(lambda: worker.log)
    outcomes = {("test.obey", "revoked"): 1, ("test.finish", "done"): 1}
    until(lambda: probe.worker("jobs_total", "job_name", "outcome") == outcomes, 20, "both to end")
    until(lambda: bench.letters() == [("obeys", "cancelled")], 20, "the dead letter")
    assert worker.stop() == 0
    assert "(obeys) is cancelled: it was told so" in worker.log
    assert "Reject" not in worker.log
    assert "Traceback" not in worker.log


def test_what_waits_is_not_begun_whether_its_worker_is_there_or_not(bench: Bench) -> None:
    with Publisher(bench.topology, bench.url) as publisher:
        for number in range(4):
            publisher.publish("test.note", id=f"early {number}").wait()
        cancel(bench, "early 1", "early 3")
        # Nobody consumes yet: the worker hears of it when it comes.
        worker = bench.worker()
        assert {note["id"] for note in bench.noted("ran", 2)} == {"early 0", "early 2"}
        # Its two slots are taken, and whatever waits behind them is cancelled there.
        for number in range(2):
            publisher.publish("test.finish", id=f"busy {number}").wait()
        bench.noted("begun", 2)
        publisher.publish("test.note", id="behind").wait()
        cancel(bench, "behind")
        cancel(bench, "busy 0", "busy 1")
        bench.noted("seen", 2)
    until(lambda: len(bench.letters()) == 3, 20, "three dead letters")
    assert set(bench.letters()) == {(id, "cancelled") for id in ("early 1", "early 3", "behind")}
    assert len(bench.notes("ran")) == 2
    assert worker.stop() == 0
    assert ready_in(bench.address, "jobs.normal") == 0


def test_a_worker_that_was_restarted_still_knows(bench: Bench) -> None:
    first = bench.worker()
    now_ms = round(time.time() * 1000)
    cancel(bench, *(f"job {number}" for number in range(1000)), "kept")
    assert first.stop() == 0
    # Published when it was cancelled, however long the worker took to stop.
    with Publisher(bench.topology, bench.url, clock=lambda: now_ms / 1000) as publisher:
        publisher.publish("test.note", id="kept").wait()
        publisher.publish("test.note", id="wanted").wait()
        # The same id, an hour later.
        later = Publisher(bench.topology, bench.url, clock=lambda: now_ms / 1000 + 3600)
        with later:
            later.publish("test.note", id="job 7").wait()
    bench.worker()
    assert {note["id"] for note in bench.noted("ran", 2)} == {"wanted", "job 7"}
    until(lambda: bench.letters() == [("kept", "cancelled")], 20, "the dead letter")


def test_a_caller_that_gives_up_is_heard_of(bench: Bench) -> None:
    worker = bench.worker()
    with Caller(bench.topology, bench.url) as caller:
        with pytest.raises(CallTimeout):
            caller.call("test.finish", timeout_s=1.0)
        bench.noted("seen", 1)
        call = caller.submit("test.finish", timeout_s=60)
        bench.noted("begun", 2)
        assert call.cancel()
        bench.noted("seen", 2)
        under_way = caller.submit("test.obey", timeout_s=60, id="by hand")
        bench.noted("begun", 3)
        cancel(bench, "by hand")
        with pytest.raises(CallCancelled, match="told so"):
            under_way.result()
        results = caller.map("demo.echo", iter([1, 2]), timeout_s=60)
        assert list(results) == [1, 2]
    assert not bench.letters()
    assert worker.stop() == 0


def test_a_command_that_is_interrupted_gives_its_call_up(bench: Bench) -> None:
    bench.worker()
    command = ["rabbitry", "jobs", "call", "test.finish", "--timeout", "60s"]
    with subprocess.Popen(command, env=bench.env, stderr=subprocess.PIPE) as process:
        bench.noted("begun")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    bench.noted("seen")


def test_half_of_what_waits_is_cancelled_and_the_ledger_adds_up(bench: Bench) -> None:
    ids = [f"call {number}" for number in range(200)]
    with Caller(bench.topology, bench.url) as caller:
        calls = [caller.submit("demo.echo", id, id=id, timeout_s=60) for id in ids]
        until(lambda: all(call.receipt.done for call in calls), 20, "the confirms")
        cancel(bench, *ids[::2])
        worker = bench.worker()
        results = {call.id: call.result() for call in calls[1::2]}
        assert results == {id: id for id in ids[1::2]}
        for call in calls[::2]:
            with pytest.raises(CallCancelled, match="was not begun: it was cancelled by"):
                call.result()
        probe = Probe.of_log(lambda: worker.log)
        outcomes = {("demo.echo", "revoked"): 100, ("demo.echo", "done"): 100}
        until(
            lambda: probe.worker("jobs_total", "job_name", "outcome") == outcomes,
            20,
            "200 endings",
        )
    assert not bench.letters()
    assert ready_in(bench.address, "jobs.normal") == 0


def test_messages_of_a_batch_are_cancelled_each_for_itself(bench: Bench) -> None:
    with Publisher(bench.topology, bench.url) as publisher:
        for number in range(10):
            publisher.publish("test.many", number, id=str(number)).wait()
    cancel(bench, "2", "5")
    bench.worker()
    ran = bench.noted("ran", 8)
    assert sorted(int(note["id"]) for note in ran) == [0, 1, 3, 4, 6, 7, 8, 9]
    assert not any(note["cancelled"] for note in ran)
    until(lambda: sorted(bench.letters()) == [("2", "cancelled"), ("5", "cancelled")], 20, "both")


def test_without_the_stream_a_worker_warns_once_and_works(bench: Bench) -> None:
    from broker.management import Management

    with Management(bench.address) as management:
        management.delete("queues", bench.address.vhost_name, "quick.cancellations")
    worker = bench.worker()
    with Caller(bench.topology, bench.url) as caller:
        assert caller.call("demo.echo", 1, timeout_s=20) == 1
    until(lambda: worker.log.count("`rabbitry topology apply` makes the stream") == 1, 20, "it")
    done = subprocess.run(
        ["rabbitry", "jobs", "cancel", "a", "b", "--json"],
        env=bench.env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 5, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["id"], line["outcome"]) for line in lines] == [
        ("a", "unroutable"),
        ("b", "unroutable"),
    ]


def test_the_command_cancels_and_says_what_became_of_it(bench: Bench) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["rabbitry", "jobs", "cancel", *words],
            env=bench.env,
            capture_output=True,
            text=True,
            timeout=60,
        )

    bench.worker()
    with Publisher(bench.topology, bench.url) as publisher:
        publisher.publish("test.obey", id="long").wait()
    bench.noted("begun")
    done = run("long", "nobody's")
    assert (done.returncode, done.stdout) == (0, "cancelled long\ncancelled nobody's\n")
    bench.noted("seen")
    assert run().returncode == 2
    refused = run("x" * 256)
    assert refused.returncode == 2
    assert "1 to 255 bytes" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_what_a_job_publishes_has_what_is_left_of_its_deadline(bench: Bench) -> None:
    bench.worker()
    with Caller(bench.topology, bench.url) as caller:
        deadline_s = caller.call("test.parent", id="the root", timeout_s=30)
    children = {note["how"]: note for note in bench.noted("child", 5)}
    for how in ("called", "published", "sent"):
        assert abs(children[how]["deadline_s"] - deadline_s) < 0.01, children
        assert children[how]["root_id"] == "the root"
    assert children["sooner"]["deadline_s"] < deadline_s - 20
    assert children["detached"]["deadline_s"] is None
    assert children["detached"]["root_id"] != "the root"
