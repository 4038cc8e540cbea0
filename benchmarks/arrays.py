"""How long do 8 MB of float64 take to a job and back? Beside a list in JSON, pickle, and bytes."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.answering import answering, metered
from benchmarks.callers import Blocking, CeleryRpc, Pika, Rabbitry
from benchmarks.echoes import (
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
OUTSIDE = "left out of the small version"


def ask(bench: Bench) -> None:
    """Measure, in milliseconds."""
    count = bench.sized(TIMES, TIMES_SMALL)
    queues = {OURS[pool]: QUEUES[pool] for pool in OURS}
    queues |= {JSON: CELERY_QUEUES["prefork"], PICKLED: PICKLE_QUEUE, PIKA: PIKA_QUEUE}
    missing = {}
    if bench.small:
        missing = dict.fromkeys((OURS["threads"], PICKLED), OUTSIDE)
    if why := lacking("pika"):
        missing[PIKA] = why
    queues = {name: queue for name, queue in queues.items() if name not in missing}
    with (
        bench.virtual_host(TOPOLOGY) as address,
        tempfile.TemporaryDirectory() as folder,
        answering(address, list(queues.values()), Path(folder)) as pids,
        ExitStack() as stack,
    ):
        caller = stack.enter_context(Caller(Topology.model_validate(TOPOLOGY), address.url))
        caller.connect()
        ways: dict[str, Blocking] = {OURS[pool]: Rabbitry(caller, pool) for pool in OURS}
        for name, serializer in ((JSON, "json"), (PICKLED, PICKLE)):
            app = celery_app(address.url, serializer=serializer)
            stack.callback(app.close)
            ways[name] = CeleryRpc(app, queues.get(name, CELERY_QUEUES["prefork"]))
        if PIKA in queues:
            pika = ways[PIKA] = Pika(address)
            stack.callback(pika.close)
        there: dict[str, Callable[[], Any]] = {JSON: ARRAY.tolist, PIKA: ARRAY.tobytes}
        back: dict[str, Callable[[Any], Any]] = {JSON: np.array, PIKA: np.frombuffer}

        def run(name: str) -> Run:
            way = ways[name]
            take = there.get(name, lambda: ARRAY)
            give = back.get(name, lambda found: found)
            seconds: list[float] = []

            def work() -> int:
                right = 0
                for _ in range(count):
                    began = time.perf_counter()
                    found = give(way.call(take()))
                    seconds.append(time.perf_counter() - began)
                    right += _same(found)
                return right

            meter = metered(
                bench,
                address,
                name,
                queue=way.queue,
                pids=pids[way.queue],
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

        bench.measure(
            "arrays",
            {name: partial(run, name) for name in queues},
            title="8 MB of float64 there and back, the median of a run",
            unit="ms",
            better="less",
            each="call",
            first=OURS["prefork"],
            missing=missing,
            notes={"array": "1,000,000 float64", "calls": count},
            libraries=("pika",),
        )


def _same(found: Any) -> bool:
    return bool(
        found.dtype == ARRAY.dtype
        and found.shape == ARRAY.shape
        and np.array_equal(found.view(np.uint64), ARRAY.view(np.uint64))
    )


if __name__ == "__main__":
    sys.exit(alone(__file__))
