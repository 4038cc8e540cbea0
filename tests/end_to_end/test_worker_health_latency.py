"""How long a worker under load takes to answer, beside a server that does nothing else."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from producers.publisher import Publisher
from tests.end_to_end.test_worker_health import RUN
from tests.probes import ANYWHERE, Probe
from tests.provision import ready_in

JOBS = 20_000
ROUNDS = 200
# The same server, in a process that is idle: what it takes is the machine's doing.
IDLE = """
import sys
from prometheus_client import CollectorRegistry
from consumers.health import Answer, Health
answer = lambda: Answer(True, {"live": True})
health = Health("127.0.0.1:0", live=answer, ready=answer, registry=CollectorRegistry())
health.start()
print(health.url, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def idle() -> Iterator[Probe]:
    command = [sys.executable, "-c", IDLE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield Probe(process.stdout.readline().decode().strip())
        process.kill()


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_the_middle_answer_comes_within_ten_milliseconds_under_load(
    provisioned, start, idle, pool
) -> None:
    text = provisioned.path.read_text()
    loaded = f"  loaded: {{queues: [jobs.normal], pool: {pool}, concurrency: 2, prefetch: 64}}\n"
    provisioned.path.write_text(text + loaded)
    daemon = start(*RUN, "loaded", "--health", ANYWHERE)
    probe = Probe.of_log(lambda: daemon.log)
    probe.until_ready()
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        list(publisher.publish_many(("demo.echo", (1,)) for _ in range(JOBS)))
    for path in ("/livez", "/readyz", "/metrics"):
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(_seconds(probe, path))
            theirs.append(_seconds(idle, path))
        assert ready_in(provisioned.address, "jobs.normal"), "no load was left"
        text = f"{pool} {path}: {_figures(ours)}; an idle server: {_figures(theirs)}"
        sys.stdout.write(f"\n{text}\n")
        # The last hundredth is the machine's as much as the worker's: it is told, for people.
        assert statistics.median(ours) < 0.010 + statistics.median(theirs), text


def _seconds(probe: Probe, path: str) -> float:
    began = time.perf_counter()
    assert probe.code(path) == 200
    return time.perf_counter() - began


def _p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[-1]


def _figures(seconds: list[float]) -> str:
    middle = statistics.median(seconds)
    return (
        f"median {1e3 * middle:.1f} ms, p99 {1e3 * _p99(seconds):.1f} ms,"
        f" longest {1e3 * max(seconds):.1f} ms"
    )
