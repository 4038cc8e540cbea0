"""How long does a command take before it does anything, and a worker until it consumes?

Commands are run from a shell's point of view: from the start of Python to its end. A worker is
timed from its start until RabbitMQ counts a consumer of its queue.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.method import (
    PYTHON,
    ROOT,
    Bench,
    Ledger,
    Meter,
    Run,
    lacking,
    purge,
    ready,
    started,
    stop,
    wait_consumed,
)
from benchmarks.method.command import alone
from benchmarks.minimal import (
    CELERY_IDLE_QUEUE,
    CELERY_JOB,
    CELERY_QUEUE,
    DRAMATIQ_QUEUE,
    FASTSTREAM_QUEUE,
    IDLE_JOB,
    IDLE_QUEUE,
    JOB,
    POOLS,
    QUEUES,
    SLOTS,
    TASKIQ_QUEUE,
    TOPOLOGY,
    URL,
)
from broker.connection import Address

ASKS = "How long does a command take, and a worker until it consumes?"
MEANING = """\
What a command costs decides whether it can stand in a shell's loop, a cron job or a completion: the
first ratio of a command is to `rabbitry --help`, which imports nothing but the command line's own
library. `jobs publish` connects, publishes one job and waits until RabbitMQ has confirmed it;
`celery call` publishes one and waits for nothing. Ours reads the topology file before it does
anything, whose model, rules and positions are most of what it imports; Celery imports an app that
somebody has written, and is done earlier. `jobs call` also waits for the reply of a worker, and
`topology plan` reads what there is on RabbitMQ. Python alone is what none of them can be below.
Whoever publishes many jobs starts one process for all of them.

A worker's time until it consumes is how long each restart, deployment or scaling step leaves its
queue to others. Ours checks before it consumes that its queues are what the topology says, loads
Celery, and forks; the pools differ by what they fork. Where a peer is ready earlier, it imports
less: dramatiq, taskiq and FastStream bring no such large library. The memory is that of all of a
worker's processes when it begins to consume, what they share counted once.
"""
CELERY = (*PYTHON, "celery", "-A", "benchmarks.minimal:celery_app")
RABBITRY = (*PYTHON, "rabbitry")
LOGLEVEL = "WARNING"
TIMEOUT_S = 60.0
FEW = 2
OUTSIDE = "left out of the small version"


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker: the queue that it consumes and the command that starts it."""

    queue: str
    command: Sequence[str]


def ask(bench: Bench) -> None:
    """Measure commands, then workers, in milliseconds."""
    with bench.virtual_host(TOPOLOGY) as address, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        topology = folder / "topology.yaml"
        # JSON is YAML.
        topology.write_text(json.dumps(TOPOLOGY))
        environment = {
            "RABBITRY_URL": address.url,
            "RABBITRY_MANAGEMENT_URL": address.management_url,
            "RABBITRY_TOPOLOGY": str(topology),
            URL: address.url,
        }
        _commands(bench, address, environment, folder)
        _workers(bench, address, environment, folder)


def _commands(bench: Bench, address: Address, environment: Mapping[str, str], folder: Path) -> None:
    publish = (*RABBITRY, "jobs", "publish", IDLE_JOB, "value=21")
    celery = (*CELERY, "call", CELERY_JOB, "--args=[21]", f"--queue={CELERY_IDLE_QUEUE}")
    timed = partial(_timed, environment)
    contenders = {
        "rabbitry --help": partial(timed, (*RABBITRY, "--help")),
        "python -c pass": partial(timed, (sys.executable, "-c", "pass")),
        "celery --help": partial(timed, (*CELERY, "--help")),
        "rabbitry jobs publish": partial(_published, timed, address, IDLE_QUEUE, publish),
        "celery call": partial(_published, timed, address, CELERY_IDLE_QUEUE, celery),
        "rabbitry jobs call": partial(_called, timed),
        "rabbitry topology plan": partial(timed, (*RABBITRY, "topology", "plan")),
    }
    if bench.small:
        contenders = dict(list(contenders.items())[:FEW])
    command = (*RABBITRY, "worker", "run", "prefork", "--loglevel", LOGLEVEL)
    with started(command, log=folder / "worker.log", environment=environment) as worker:
        wait_consumed(address, QUEUES["prefork"])
        bench.measure(
            "startup.commands",
            contenders,
            title="a command from its start to its end",
            unit="ms",
            first="rabbitry --help",
            better="less",
        )
        stop(worker)


def _timed(environment: Mapping[str, str], command: Sequence[str], expected: str = "") -> float:
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    milliseconds = (time.perf_counter() - began) * 1e3
    if done.returncode or expected not in done.stdout:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return milliseconds


def _published(timed: Any, address: Address, queue: str, command: Sequence[str]) -> float:
    milliseconds = float(timed(command))
    Ledger(published=1, waiting=ready(address, queue)).check(" ".join(command), all_are="waiting")
    purge(address, queue)
    return milliseconds


def _called(timed: Any) -> float:
    return float(timed((*RABBITRY, "jobs", "call", JOB, "value=21"), "42"))


def _workers(bench: Bench, address: Address, environment: Mapping[str, str], folder: Path) -> None:
    run = (*RABBITRY, "worker", "run")
    quiet = ("--loglevel", LOGLEVEL)
    workers = {
        f"rabbitry, {pool}": Worker(QUEUES[pool], (*run, pool, *quiet))
        for pool in bench.sized(POOLS, POOLS[:1])
    }
    celery = (*CELERY, "worker", "-Q", CELERY_QUEUE, *quiet)
    workers["Celery, prefork"] = Worker(CELERY_QUEUE, (*celery, "-c", str(SLOTS)))
    if not bench.small:
        workers["Celery, solo"] = Worker(CELERY_QUEUE, (*celery, "-P", "solo"))
    dramatiq = (*PYTHON, "dramatiq", "benchmarks.minimal:dramatiq_broker")
    taskiq = (*PYTHON, "taskiq", "worker", "benchmarks.minimal:taskiq_broker")
    peers = {
        "dramatiq": Worker(
            DRAMATIQ_QUEUE, (*dramatiq, "--processes", str(SLOTS), "--threads", "1")
        ),
        "taskiq": Worker(TASKIQ_QUEUE, (*taskiq, "--workers", str(SLOTS))),
        "FastStream, one process": Worker(FASTSTREAM_QUEUE, (*PYTHON, "benchmarks.minimal")),
    }
    missing = {}
    for name, module in zip(peers, ("dramatiq", "taskiq_aio_pika", "faststream"), strict=True):
        why = OUTSIDE if bench.small else lacking(module)
        if why:
            missing[name] = why
        else:
            workers[name] = peers[name]
    bench.measure(
        "startup.workers",
        {
            name: partial(_until_it_consumes, bench, address, environment, folder, worker)
            for name, worker in workers.items()
        },
        title=f"a worker from its start until it consumes, {SLOTS} slots (solo: one)",
        unit="ms",
        first="rabbitry, prefork",
        better="less",
        missing=missing,
        libraries=("dramatiq", "taskiq", "taskiq-aio-pika", "faststream"),
    )


def _until_it_consumes(
    bench: Bench, address: Address, environment: Mapping[str, str], folder: Path, worker: Worker
) -> Run:
    began = time.perf_counter()
    log = folder / f"{uuid.uuid4().hex}.log"
    with started(worker.command, log=log, environment=environment) as process:
        meter = Meter(bench.rabbitmq.pid, process.pid)
        meter.start()
        wait_consumed(address, worker.queue, timeout_s=TIMEOUT_S)
        milliseconds = (time.perf_counter() - began) * 1e3
        meter.stop()
        stop(process)
    return Run(value=milliseconds, resident_mib=meter.resident_mib)


if __name__ == "__main__":
    sys.exit(alone(__file__))
