"""How long do 8 MB of float64 take to a job and back? Beside a list in JSON, pickle, and bytes."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.calling.answering import answering, metered
from benchmarks.calling.callers import Blocking, CeleryRpc, Pika, Rabbitry
from benchmarks.calling.echoes import (
    CELERY_QUEUES,
    PICKLE,
    PICKLE_QUEUE,
    PIKA_QUEUE,
    QUEUES,
    TOPOLOGY,
    celery_app,
)
from benchmarks.method import Bench, Run, lacking
from benchmarks.method.command import alone
from broker.connection import Address
from broker.topology import Topology
from producers.caller import Caller

ASKS = "How long does an array of 8 MB take to a job and back?"
MEANING = """\
The time of one call whose argument and whose result are an array of a million float64, from an
array to an array. Celery's own serializer is JSON: a list of numbers, which grows to twice the
bytes and is written and read digit by digit, there and back. The numbers of this one are rounded to
twelve decimals, which is to its advantage: with all that a float64 has, the list would be longer
than RabbitMQ lets a message be (16 MiB).

Pickle carries an array about as fast as we do, and Celery can be told to use it; but whoever can
send it a message can then run any code in the worker, which is why it is off in Celery, and why
ours writes `.npy` without it. pika sends the same bytes there and back and does nothing with them:
what RabbitMQ and the network take of the time. Our ratio to it is what checking, a pool's process
and the memory it shares with the worker cost. `threads` needs no way to another process.

The result is compared with what was sent, bit by bit, after each run and outside the time.
"""
ARRAY = np.round(np.random.default_rng(1).random(1_000_000), 12)
TIMES, TIMES_SMALL = 3, 1
OURS = {pool: f"rabbitry, {pool}" for pool in ("prefork", "threads")}
JSON, PICKLED, PIKA = "Celery rpc://, JSON", "Celery rpc://, pickle", "pika, the same bytes"
# What the array is sent as, and how it is an array again.
THERE: dict[str, Callable[[Any], Any]] = {JSON: np.ndarray.tolist, PIKA: np.ndarray.tobytes}
BACK: dict[str, Callable[[Any], Any]] = {JSON: np.array, PIKA: np.frombuffer}
OUTSIDE = "left out of the small version"


def ask(bench: Bench) -> None:
    """Measure, in milliseconds."""
    count = bench.sized(TIMES, TIMES_SMALL)
    queues = {OURS[pool]: QUEUES[pool] for pool in OURS}
    queues |= {JSON: CELERY_QUEUES["prefork"], PICKLED: PICKLE_QUEUE, PIKA: PIKA_QUEUE}
    missing = dict.fromkeys((OURS["threads"], PICKLED), OUTSIDE) if bench.small else {}
    if why := lacking("pika"):
        missing[PIKA] = why
    queues = {name: queue for name, queue in queues.items() if name not in missing}
    with (
        bench.virtual_host(TOPOLOGY) as address,
        tempfile.TemporaryDirectory() as folder,
        answering(address, list(queues.values()), Path(folder)) as pids,
        _ways(address, queues) as ways,
    ):
        bench.measure(
            "arrays",
            {
                name: partial(_run, bench, address, name, way, pids[way.queue], count)
                for name, way in ways.items()
            },
            title="8 MB of float64 there and back, the median of a run",
            unit="ms",
            better="less",
            each="call",
            first=OURS["prefork"],
            missing=missing,
            notes={"array": "1,000,000 float64", "calls": count},
            libraries=("pika",),
        )


@contextmanager
def _ways(address: Address, names: Collection[str]) -> Iterator[dict[str, Blocking]]:
    """Connect who calls, by name."""
    ways: dict[str, Blocking] = {}
    with ExitStack() as stack:
        caller = stack.enter_context(Caller(Topology.model_validate(TOPOLOGY), address.url))
        caller.connect()
        for pool, name in OURS.items():
            ways[name] = Rabbitry(caller, pool)
        for name, queue, serializer in (
            (JSON, CELERY_QUEUES["prefork"], "json"),
            (PICKLED, PICKLE_QUEUE, PICKLE),
        ):
            app = celery_app(address.url, serializer=serializer)
            stack.callback(app.close)
            ways[name] = CeleryRpc(app, queue)
        if PIKA in names:
            pika = ways[PIKA] = Pika(address)
            stack.callback(pika.close)
        yield {name: way for name, way in ways.items() if name in names}


def _run(
    bench: Bench,
    address: Address,
    name: str,
    way: Blocking,
    pids: Sequence[int],
    count: int,
) -> Run:
    there, back = THERE.get(name, np.asarray), BACK.get(name, np.asarray)
    seconds: list[float] = []

    def work() -> int:
        right = 0
        for _ in range(count):
            began = time.perf_counter()
            found = back(way.call(there(ARRAY)))
            seconds.append(time.perf_counter() - began)
            right += _same(found)
        return right

    meter = metered(
        bench,
        address,
        name,
        queue=way.queue,
        pids=pids,
        count=count,
        work=work,
        again=way.again,
    )
    return Run(
        value=1e3 * statistics.median(seconds),
        jobs=count,
        client_s=meter.client_s,
        broker_s=meter.broker_s,
    )


def _same(found: Any) -> bool:
    return bool(
        found.dtype == ARRAY.dtype
        and found.shape == ARRAY.shape
        and np.array_equal(found.view(np.uint64), ARRAY.view(np.uint64))
    )


if __name__ == "__main__":
    sys.exit(alone(__file__))
