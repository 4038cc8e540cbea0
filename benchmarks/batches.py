"""How many jobs a second does a worker run in batches? Beside the same jobs one by one.

Two slots, prefork, a quorum queue, the same number of messages ahead for all. The job gives a text
a class by a small network in numpy, the same function for a text and for a batch of them.
`batches.bare` sets batches that do nothing beside a bare client of one process, which acknowledges
a hundred messages at a time: what it reaches is what RabbitMQ and the wire allow Python here.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from benchmarks.batched import (
    ACKED_TOGETHER,
    CHARACTERS,
    HUNDRED,
    IDLE,
    LARGE,
    MANY,
    PREFETCH,
    SINGLE,
    SMALL,
    TOPOLOGY,
    URL,
    WORKER,
)
from benchmarks.consumers.work import Load, work
from benchmarks.consumers.workers import LOGLEVEL, Worker
from benchmarks.method import PYTHON, Bench
from benchmarks.method.command import alone
from broker.connection import Address

ASKS = "What do batches gain?"
MEANING = f"""\
A job that is given {SMALL} messages at a time spreads over them what each would cost alone: the way
through the worker's pool, a result, an acknowledgement, and the calls of numpy, which take longer
than the arithmetic for one short text. The ratio is how many times as many jobs the same worker
runs, with the same guarantees for each message. Producers do not know whether a job runs in
batches. What it asks of a task is that it takes lists; see
[Run many messages in one call](how-to/batches.md).

Larger batches gain little more: by then nearly all that is left is RabbitMQ's part, and reading
the deliveries. The bare client shows how much that is. It reads each message's number and nothing
else, in one process, and acknowledges {ACKED_TOGETHER} messages at a time.

No peer is in these tables: Celery, dramatiq, taskiq and FastStream have no batches for RabbitMQ of
their own. What they take for jobs one by one is in the tables of no-op jobs.

**What is the same:** the jobs and their payload, the queue, two slots, and how many messages are
held ahead, which is more than jobs one by one are usually given, in their favour. numpy computes in
one thread for each process. No round is left out: each run starts new processes, and is measured
from when a tenth of its jobs are done. The memory is that of all of a worker's processes, what they
share counted once.
"""

# About a second's work.
JOBS, FEW_JOBS = 20_000, 6_000
SMALL_JOBS = 12_000
SMALL_FEW = 4_000
SMALL_ROUNDS = 2
OUTSIDE = "left out of the small version"
ONE_BY_ONE, LARGE_BATCHES = "one by one", f"batches of {LARGE}"
NOOPS, BARE = f"batches of {LARGE} no-ops", "py-amqp, bare"


def ask(bench: Bench) -> None:
    """Measure, in jobs a second."""
    few = bench.sized(FEW_JOBS, SMALL_FEW)
    many = bench.sized(JOBS, SMALL_JOBS)
    classed = {f"batches of {SMALL}": (HUNDRED, many), ONE_BY_ONE: (SINGLE, few)}
    if not bench.small:
        classed[LARGE_BATCHES] = (MANY, many)
    title = "texts classed a second, two slots"
    with bench.virtual_host(TOPOLOGY) as address, tempfile.TemporaryDirectory() as folder:
        ours = _worker(address, Path(folder))
        _measure(bench, address, Path(folder), "batches", title, classed, ours)
        if not bench.small:
            title = "no-op jobs a second, beside a bare client"
            noops = {NOOPS: (IDLE, many), BARE: (SINGLE, many)}
            _measure(bench, address, Path(folder), "batches.bare", title, noops, ours)


def _measure(
    bench: Bench,
    address: Address,
    folder: Path,
    measurement: str,
    title: str,
    jobs: Mapping[str, tuple[str, int]],
    command: tuple[tuple[str, ...], Mapping[str, str]],
) -> None:
    contenders = {}
    for name, (job, count) in jobs.items():
        run, environment = command
        if name == BARE:
            run, environment = (*PYTHON, "benchmarks.batched"), {URL: address.url}
        worker = Worker(command=run, environment=environment, job=job)
        load = Load(jobs=count, size_bytes=CHARACTERS)
        contenders[name] = partial(work, name, bench, address, worker, load, folder=folder)
    bench.measure(
        measurement,
        contenders,
        title=title,
        unit="jobs/s",
        first=next(iter(jobs)),
        missing={LARGE_BATCHES: OUTSIDE} if bench.small else {},
        notes={"prefetch": PREFETCH, "argument_bytes": CHARACTERS},
        rounds=SMALL_ROUNDS if bench.small else None,
        # Each run begins with new processes, and is measured when a tenth of it is done.
        warm_up=False,
    )


def _worker(address: Address, folder: Path) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Return the command of our worker and its environment."""
    topology = folder / "topology.yaml"
    # JSON is YAML.
    topology.write_text(json.dumps(TOPOLOGY))
    return (*PYTHON, "rabbitry", "worker", "run", WORKER, "--loglevel", LOGLEVEL), {
        URL: address.url,
        "RABBITRY_MANAGEMENT_URL": address.management_url,
        "RABBITRY_TOPOLOGY": str(topology),
        # There is a process for each core.
        "OPENBLAS_NUM_THREADS": "1",
    }


if __name__ == "__main__":
    sys.exit(alone(__file__))
