"""A worker answers probes and Prometheus by itself, whatever its jobs and RabbitMQ do."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
from prometheus_client.parser import text_string_to_metric_families

from producers.caller import Caller
from producers.publisher import Publisher
from tests.end_to_end.test_worker import children_of
from tests.provision import ready_in
from tests.waiting import until

RUN = (sys.executable, "-m", "rabbitry", "worker", "run")
POOLS = """\
  threaded: {queues: [jobs.normal], pool: threads, concurrency: 2}
  alone: {queues: [jobs.normal], pool: solo}
  green: {queues: [jobs.normal], pool: gevent, concurrency: 2}
"""


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


class Probe:
    """Asks a daemon at one port."""

    def __init__(self, port: int) -> None:
        self.where = f"127.0.0.1:{port}"

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{self.where}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read().decode()
        except OSError as exc:
            return 0, str(exc)

    def code(self, path: str) -> int:
        return self.get(path)[0]

    def until_ready(self) -> None:
        until(lambda: self.code("/readyz") == 200, timeout_s=40, what="the worker to be ready")

    def total(self, name: str, *by: str) -> dict[tuple[str, ...], float]:
        """Return the sums of a metric's samples, by labels."""
        found: Counter[tuple[str, ...]] = Counter()
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                if sample.name == f"rabbitry_worker_{name}":
                    found[tuple(sample.labels[label] for label in by)] += sample.value
        return {key: value for key, value in found.items() if value}


@pytest.fixture
def probe() -> Iterator[Probe]:
    return Probe(free_port())


def with_pools(provisioned) -> None:
    text = provisioned.path.read_text()
    provisioned.path.write_text(text + POOLS)


@pytest.mark.parametrize("name", ["normal", "threaded", "alone", "green"])
def test_a_worker_lives_and_is_ready_while_a_job_runs(provisioned, start, probe, name) -> None:
    with_pools(provisioned)
    daemon = start(*RUN, name, "--health", probe.where)
    probe.until_ready()
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("demo.sleep", seconds=4.0).wait()
    until(lambda: probe.total("running") == {(): 1}, timeout_s=20, what="the job to run")
    assert probe.code("/livez") == 200
    code, text = probe.get("/readyz")
    assert (code, json.loads(text)["queues"]) == (200, {"jobs.normal": "consuming"})
    assert probe.total("jobs_total") == {}
    until(
        lambda: probe.total("jobs_total", "job_name", "queue", "outcome"),
        timeout_s=20,
        what="the job to end",
    )
    outcomes = probe.total("jobs_total", "job_name", "queue", "outcome")
    assert outcomes == {("demo.sleep", "jobs.normal", "done"): 1}
    assert probe.total("running") == probe.total("in_flight") == {}
    assert 4 <= probe.total("run_seconds_sum")[()] < 8
    assert daemon.stop() == 0


def test_the_metrics_add_up_to_what_was_published(provisioned, start, probe) -> None:
    """The ledger: done, retried to the limit, given up on, answered, and a killed child."""
    daemon = start(*RUN, "normal", "--health", probe.where)
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
        lambda: probe.total("running", "job_name") == {("demo.sleep",): 1},
        timeout_s=30,
        what="the long job to run",
    )
    for pid in children_of(daemon.process.pid):
        os.kill(pid, signal.SIGKILL)

    def outcomes() -> dict[tuple[str, ...], float]:
        return probe.total("jobs_total", "job_name", "outcome")

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
    assert probe.total("received_total")[()] == sum(outcomes().values())
    assert probe.total("redelivered_total", "job_name") == {("demo.fail",): 10, ("demo.sleep",): 1}
    assert probe.total("wait_seconds_count")[()] == 100 + 1 + 5 + 7 + 1
    assert probe.total("dead_letters_total", "reason") == {("limit",): 5, ("arguments",): 7}
    assert probe.total("in_flight") == probe.total("running") == {}
    assert probe.total("slots") == {(): 2}
    assert probe.total("consuming", "queue") == {("jobs.normal",): 1}


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


def test_the_file_says_where_and_a_new_daemon_takes_the_port_at_once(
    provisioned, start, probe
) -> None:
    text = provisioned.path.read_text()
    provisioned.path.write_text(
        text.replace("concurrency: 2}", f'concurrency: 2, health: "{probe.where}"}}')
    )
    first = start(*RUN, "normal")
    probe.until_ready()
    children = children_of(first.process.pid)
    assert children
    first.process.kill()
    first.process.wait()
    # The children may outlive it for a moment, and hold the port where they have it.
    start(*RUN, "normal")
    probe.until_ready()


def test_clients_that_say_nothing_hold_up_nobody(provisioned, start, probe) -> None:
    start(*RUN, "normal", "--health", probe.where)
    host, _, port = probe.where.rpartition(":")
    halves = [socket.create_connection((host, int(port))) for _ in range(40)]
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
