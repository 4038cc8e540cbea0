"""A worker answers probes and Prometheus by itself, whatever its jobs and RabbitMQ do."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress

import pytest

from producers.caller import Caller
from producers.publisher import Publisher
from tests.end_to_end.test_worker import children_of
from tests.probes import ANYWHERE, Probe
from tests.provision import ready_in
from tests.waiting import until

RUN = (sys.executable, "-m", "rabbitry", "worker", "run")
POOLS = """\
  threaded: {queues: [jobs.normal], pool: threads, concurrency: 2}
  alone: {queues: [jobs.normal], pool: solo}
  green: {queues: [jobs.normal], pool: gevent, concurrency: 2}
"""
# A module whose tasks are fine, and whose signal handler keeps the loop for ever.
STUCK = """
import signal, time
from consumers.job import job

signal.signal(signal.SIGUSR2, lambda *_: time.sleep(1000))

@job("test.tiny")
def tiny():
    return None
"""


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


def with_pools(provisioned) -> None:
    text = provisioned.path.read_text()
    provisioned.path.write_text(text + POOLS)


@pytest.mark.parametrize("name", ["normal", "threaded", "alone", "green"])
def test_a_worker_lives_and_is_ready_while_a_job_runs(provisioned, start, name) -> None:
    with_pools(provisioned)
    daemon = start(*RUN, name, "--health", ANYWHERE)
    probe = Probe.of_log(lambda: daemon.log)
    probe.until_ready()
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("demo.sleep", seconds=2.0).wait()
    until(lambda: probe.worker("running") == {(): 1}, timeout_s=20, what="the job to run")
    assert probe.code("/livez") == 200
    code, text = probe.get("/readyz")
    assert (code, json.loads(text)["queues"]) == (200, {"jobs.normal": "consuming"})
    assert probe.worker("jobs_total") == {}
    until(
        lambda: probe.worker("jobs_total", "job_name", "queue", "outcome"),
        timeout_s=20,
        what="the job to end",
    )
    outcomes = probe.worker("jobs_total", "job_name", "queue", "outcome")
    assert outcomes == {("demo.sleep", "jobs.normal", "done"): 1}
    assert probe.worker("running") == probe.worker("in_flight") == {}
    assert 2 <= probe.worker("run_seconds_sum")[()] < 6
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        names = ["demo.echo"] * 50 + ["demo.fail"] * 2
        list(publisher.publish_many((name, ()) for name in names))
    until(
        lambda: probe.worker("dead_letters_total", "reason") == {("limit",): 2},
        timeout_s=30,
        what="the dead letters",
    )
    assert probe.worker("jobs_total", "job_name", "outcome") == {
        ("demo.sleep", "done"): 1,
        ("demo.echo", "done"): 50,
        ("demo.fail", "retried"): 4,
        ("demo.fail", "dead"): 2,
    }
    assert probe.worker("in_flight") == probe.worker("running") == {}
    assert daemon.stop() == 0


def test_the_metrics_add_up_to_what_was_published(provisioned, start) -> None:
    """The ledger: done, retried to the limit, given up on, answered, and a killed child."""
    daemon = start(*RUN, "normal", "--health", ANYWHERE)
    probe = Probe.of_log(lambda: daemon.log)
    with Caller(provisioned.topology, provisioned.url) as caller:
        assert list(caller.map("demo.echo", range(100), timeout_s=30)) == list(range(100))
        assert caller.submit("demo.fail", timeout_s=20).exception(timeout=20) is not None
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        list(publisher.publish_many(("demo.fail", ()) for _ in range(5)))
        list(publisher.publish_many(("demo.add", ("x", 1)) for _ in range(7)))
        until(
            lambda: ready_in(provisioned.address, "jobs.dead") == 12,
            timeout_s=30,
            what="the dead letters",
        )
        publisher.publish("demo.sleep", seconds=2.0, id="killed").wait()
    until(
        lambda: probe.worker("running", "job_name") == {("demo.sleep",): 1},
        timeout_s=30,
        what="the long job to run",
    )
    for pid in children_of(daemon.process.pid):
        os.kill(pid, signal.SIGKILL)

    def outcomes() -> dict[tuple[str, ...], float]:
        return probe.worker("jobs_total", "job_name", "outcome")

    until(lambda: outcomes().get(("demo.sleep", "done")) == 1, timeout_s=30, what="the last job")
    assert outcomes() == {
        ("demo.echo", "done"): 100,
        ("demo.fail", "answered"): 1,
        ("demo.fail", "retried"): 10,
        ("demo.fail", "dead"): 5,
        ("demo.add", "dead"): 7,
        ("demo.sleep", "retried"): 1,
        ("demo.sleep", "done"): 1,
    }
    assert probe.worker("received_total")[()] == sum(outcomes().values())
    assert probe.worker("redelivered_total", "job_name") == {("demo.fail",): 10, ("demo.sleep",): 1}
    assert probe.worker("wait_seconds_count")[()] == 100 + 1 + 5 + 7 + 1
    assert probe.worker("dead_letters_total", "reason") == {("limit",): 5, ("arguments",): 7}
    assert probe.worker("in_flight") == probe.worker("running") == {}
    assert probe.worker("slots") == {(): 2}
    assert probe.worker("consuming", "queue") == {("jobs.normal",): 1}


def test_a_port_in_use_is_said_before_anything_is_consumed(provisioned, start, env) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        where = f"127.0.0.1:{server.getsockname()[1]}"
        done = subprocess.run(
            [*RUN, "normal", "--health", where],
            env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert f"health cannot be served at {where}: Address already in use" in line
    assert "Traceback" not in done.stderr


def test_the_file_says_where_and_a_new_daemon_takes_the_port_at_once(provisioned, start) -> None:
    where = f"127.0.0.1:{free_port()}"
    text = provisioned.path.read_text()
    provisioned.path.write_text(
        text.replace("concurrency: 2}", f'concurrency: 2, health: "{where}"}}')
    )
    probe = Probe(f"http://{where}")
    first = start(*RUN, "normal")
    probe.until_ready()
    children = children_of(first.process.pid)
    assert children
    first.process.kill()
    first.process.wait()
    # The children may outlive it for a moment, and hold the port where they have it.
    start(*RUN, "normal")
    probe.until_ready()


def test_clients_that_say_nothing_hold_up_nobody(provisioned, start) -> None:
    daemon = start(*RUN, "normal", "--health", ANYWHERE)
    probe = Probe.of_log(lambda: daemon.log)
    port = int(probe.url.rpartition(":")[2])
    halves = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
    for half in halves[::2]:
        half.sendall(b"GET /livez HTTP/1.1\r\nHo")
    began = time.monotonic()
    assert probe.code("/livez") == 200
    assert time.monotonic() - began < 3
    for half in halves:
        half.settimeout(30)
        # Cut off by the daemon, after its patience.
        with suppress(ConnectionResetError):
            assert half.recv(1) == b""
        half.close()
    assert probe.code("/nothing") == 404


def test_an_address_that_is_none_is_said(provisioned, env) -> None:
    done = subprocess.run(
        [*RUN, "normal", "--health", "9808"],
        env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "'9808' is no HOST:PORT" in done.stderr


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["normal", "threaded", "alone", "green"])
def test_a_worker_lives_while_a_job_of_minutes_runs_once(provisioned, start, name) -> None:
    with_pools(provisioned)
    daemon = start(*RUN, name, "--health", ANYWHERE)
    probe = Probe.of_log(lambda: daemon.log)
    probe.until_ready()
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("demo.sleep", seconds=150.0).wait()
    lived = set()

    def over() -> bool:
        lived.add(probe.code("/livez"))
        return bool(probe.worker("jobs_total"))

    until(over, timeout_s=240, what="the job to end")
    assert lived == {200}
    assert probe.worker("jobs_total", "outcome") == {("done",): 1}
    assert probe.worker("received_total") == {(): 1}
    assert ready_in(provisioned.address, "jobs.normal") == 0


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_worker_whose_loop_is_stuck_for_good_is_dead(provisioned, start, tmp_path) -> None:
    (tmp_path / "stuck.py").write_text(STUCK)
    text = provisioned.path.read_text()
    provisioned.path.write_text(text.replace("test.tiny: {", 'test.tiny: {task: "stuck:tiny", '))
    daemon = start(*RUN, "normal", "--health", ANYWHERE)
    probe = Probe.of_log(lambda: daemon.log)
    probe.until_ready()
    assert probe.code("/livez") == 200
    daemon.process.send_signal(signal.SIGUSR2)
    until(lambda: probe.code("/livez") == 503, timeout_s=90, what="the loop to be taken for dead")
    assert "the loop has not turned for" in probe.get("/livez")[1]
    assert probe.code("/readyz") == 503
