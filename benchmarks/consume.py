"""How many no-op jobs a second does a worker run? Beside four frameworks and three bare clients.

Two slots each, a quorum queue, acknowledged when done, the same number of messages fetched ahead.
The queue is filled before the worker starts. `consume.wide` holds 64 messages ahead,
`consume.narrow` one for each slot.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from benchmarks.consumers.place import POOLS, SLOTS, TOPOLOGY, WIDE
from benchmarks.consumers.work import Load, work
from benchmarks.consumers.workers import needs, worker
from benchmarks.method import Bench
from benchmarks.method.command import alone
from benchmarks.publishers import SIZE_BYTES
from broker.connection import Address

ASKS = "How many no-op jobs a second does a worker run?"
MEANING = """\
A no-op job shows what a worker costs beside the work: with jobs of 50 ms nobody will see the
difference between these workers, with jobs of a millisecond everybody will. The processor's time is
the part to look at where jobs share their machine: what the worker takes, the jobs do not get.

**Many messages ahead** is the setting for short jobs. Ours is set in proportion to Celery, on which
it is built, with the same guarantees on both sides: acknowledged when done, returned when a
process is lost. Ours also checks each job's arguments, keeps deadlines and counts attempts. It is
faster since it reads what has come in one go, acknowledges once a turn, and lets idle processes
fetch their jobs from a common inbox. `threads` and `solo` have no second process to wake, and are
for work that waits for others, or that must be alone; they cannot end a job at its time limit.

dramatiq, taskiq, FastStream and the bare clients have no process that stands between RabbitMQ and
those that run jobs: each of theirs connects by itself. That saves a hop for every job, and where
jobs are this short such workers can be faster than ours; it also means that nobody replaces a
process that hangs, ends a job at its limit whatever it does, or buries what kills its process. The
bare clients decode a body and acknowledge; they know no retries, no time limits, no records of what
failed. What they reach is what a consumer in Python can reach with an acknowledgement for each
message. taskiq and FastStream run coroutines in their event loop: a job that computes holds up all
others of its process.

**As many messages as slots** is the setting for long jobs and for priorities: whatever has been
fetched ahead cannot be overtaken. Each job then waits for a round trip to RabbitMQ, in every
worker, and the rates are those of a chain of wakings.

**What is the same:** two slots (one with `solo`), a quorum queue, messages of the same argument in
each library's own format, and how many are held ahead by all slots together. dramatiq's slots are
two processes of one thread, taskiq's, FastStream's and those of the bare clients two processes.
FastStream is started by our own two processes, with its application's `run`: its command wants
libraries in versions that others here cannot have. No round is
left out: each run starts new processes, and is measured from when a tenth of its jobs are done. The
memory is that of all of a worker's processes, what they share counted once.
"""

OURS, CELERY = "rabbitry, prefork", "Celery, prefork"
# About as many jobs as a second's work, but few enough for those that take longest to be filled in.
JOBS = {
    OURS: 6_000,
    "rabbitry, threads": 6_000,
    "rabbitry, solo": 6_000,
    CELERY: 3_000,
    "Celery, threads": 3_000,
    "Celery, solo": 3_000,
    "dramatiq": 6_000,
    "taskiq": 4_000,
    "FastStream": 4_000,
    "kombu": 6_000,
    "pika": 6_000,
    "aio-pika": 6_000,
}
# A message for each slot is a round trip for each job, for everybody.
NARROW_SHARE = 3
SMALL_JOBS = 2_000
SMALL_ROUNDS = 2
LIBRARIES = ("dramatiq", "pika", "aio-pika", "taskiq", "taskiq-aio-pika", "faststream", "uvloop")
OUTSIDE = "left out of the small version"


def ask(bench: Bench) -> None:
    """Measure, in jobs a second."""
    with bench.virtual_host(TOPOLOGY) as address, tempfile.TemporaryDirectory() as folder:
        wide = dict.fromkeys(JOBS, WIDE)
        title = f"no-op jobs a second, two slots (solo: one), {WIDE} messages ahead"
        _measure(bench, address, Path(folder), "consume.wide", title, wide)
        narrow = {name: POOLS.get(name.partition(", ")[2], SLOTS) for name in JOBS}
        title = "no-op jobs a second, two slots (solo: one), a message for each"
        _measure(bench, address, Path(folder), "consume.narrow", title, narrow)


def _measure(
    bench: Bench,
    address: Address,
    folder: Path,
    measurement: str,
    title: str,
    prefetches: Mapping[str, int],
) -> None:
    contenders, missing = {}, {}
    for name, prefetch in prefetches.items():
        why = OUTSIDE if bench.small and name not in (OURS, CELERY) else needs(name)
        if why:
            missing[name] = why
            continue
        share = 1 if prefetch == WIDE else NARROW_SHARE
        contenders[name] = partial(
            work,
            name,
            bench,
            address,
            worker(name, address, prefetch=prefetch, folder=folder),
            Load(jobs=bench.sized(JOBS[name], SMALL_JOBS) // share),
            folder=folder,
        )
    bench.measure(
        measurement,
        contenders,
        title=title,
        unit="jobs/s",
        first=OURS,
        missing=missing,
        libraries=LIBRARIES,
        notes={"prefetch": max(prefetches.values()), "argument_bytes": SIZE_BYTES},
        rounds=SMALL_ROUNDS if bench.small else None,
        # Each run begins with new processes, and is measured when a tenth of it is done.
        warm_up=False,
    )


if __name__ == "__main__":
    sys.exit(alone(__file__))
