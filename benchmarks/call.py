"""How fast does a call get its reply? Beside Celery's ``rpc://`` and others that call.

First one call at a time, then 2,000 outstanding ones, of a job that returns what it is given. All
callers are of this process, one after another; who answers has two slots (solo: one).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.calling.answering import answering, metered
from benchmarks.calling.callers import (
    Awaited,
    CeleryRpc,
    Loop,
    Pika,
    Rabbitry,
    Way,
    aio_pika_call,
    faststream_call,
)
from benchmarks.calling.echoes import (
    AIO_PIKA_QUEUE,
    CELERY_QUEUES,
    FASTSTREAM_QUEUE,
    PIKA_QUEUE,
    POOLS,
    QUEUES,
    SLOTS,
    TOPOLOGY,
    WIDE,
    celery_app,
)
from benchmarks.method import Bench, Run, lacking, latencies
from benchmarks.method.command import alone
from broker.connection import Address
from broker.topology import Topology
from producers.caller import Caller

ASKS = "How fast does a call get its reply?"
MEANING = """\
**One call at a time** is what a web page waits for when it asks a job for something. The floor is
bare pika: a request into a quorum queue, the body sent back by direct reply-to, and no task, no
contract, no pool, nothing confirmed. Our ratio to it is the price of what it has not: a request
that is confirmed, and comes back where no queue takes it; a reply that outlives a lost connection,
and that RabbitMQ has confirmed before its request is acknowledged; and, with prefork, the way to a
process of the pool and back, which `threads` and `solo` spare.
Celery's `rpc://` declares its queue of replies anew for each call.

**With 2,000 outstanding** a caller sends all requests and then waits for all replies. The ratio to
Celery says how many times as many calls the same cores serve; bare pika is again the floor, for
what it does not do.

aio-pika's RPC confirms requests and replies and has no pool at all: the job is run by the event
loop that also reads from RabbitMQ. That is quick for a job like this one, and a job that computes
would stop every other call and the heartbeat. FastStream consumes anew for each request, and lets
the next one through when the one before has its reply. taskiq has nowhere on RabbitMQ to keep a
result.

For all: requests are persistent and go into quorum queues, all processes of a worker together fetch
64 ahead, the acknowledgement comes after the reply, the argument has 256 characters, and the time
of the processor is that of the caller and of those who answer. Celery's and pika's requests and
replies are not confirmed.
"""
ARGUMENT = "x" * 256
ONE_BY_ONE, ONE_BY_ONE_SMALL = 300, 100
OUTSTANDING, OUTSTANDING_SMALL = 2_000, 400
OURS = {pool: f"rabbitry, {pool}" for pool in POOLS}
CELERY = {pool: f"Celery rpc://, {pool}" for pool in POOLS}
PIKA, AIO_PIKA, FASTSTREAM, TASKIQ = "pika, bare", "aio-pika, RPC", "FastStream", "taskiq"
OUTSIDE = "left out of the small version"
NO_RESULTS = "its package for RabbitMQ keeps no results; they would need another server"
ONE_AT_A_TIME = "it lets one request at a time through a connection"
LIBRARIES = ("pika", "aio-pika", "faststream", "taskiq-aio-pika")


def ask(bench: Bench) -> None:
    """Measure one call in milliseconds, then calls a second."""
    missing = {TASKIQ: OUTSIDE if bench.small else lacking("taskiq_aio_pika") or NO_RESULTS}
    queues = {OURS[pool]: queue for pool, queue in QUEUES.items()}
    celery = CELERY_QUEUES if not bench.small else {"prefork": CELERY_QUEUES["prefork"]}
    queues |= {CELERY[pool]: queue for pool, queue in celery.items()}
    peers = {PIKA: ("pika", PIKA_QUEUE)}
    others = {
        AIO_PIKA: ("aio_pika", AIO_PIKA_QUEUE),
        FASTSTREAM: ("faststream", FASTSTREAM_QUEUE),
    }
    if bench.small:
        missing |= dict.fromkeys(others, OUTSIDE)
    else:
        peers |= others
    for name, (module, queue) in peers.items():
        if why := lacking(module):
            missing[name] = why
        else:
            queues[name] = queue
    with (
        bench.virtual_host(TOPOLOGY) as address,
        tempfile.TemporaryDirectory() as folder,
        answering(address, list(queues.values()), Path(folder)) as pids,
        _ways(address, queues) as ways,
    ):
        _one(bench, address, ways, pids, missing)
        if FASTSTREAM in ways:
            missing[FASTSTREAM] = ONE_AT_A_TIME
            del ways[FASTSTREAM]
        _outstanding(bench, address, ways, pids, missing)


@contextmanager
def _ways(address: Address, queues: dict[str, str]) -> Iterator[dict[str, Way]]:
    """Connect who calls, by the names of those whose queues are given."""
    with ExitStack() as stack:
        caller = stack.enter_context(Caller(Topology.model_validate(TOPOLOGY), address.url))
        caller.connect()
        app = celery_app(address.url)
        stack.callback(app.close)
        ways: dict[str, Way] = {OURS[pool]: Rabbitry(caller, pool) for pool in POOLS}
        ways |= {
            CELERY[pool]: CeleryRpc(app, queue)
            for pool, queue in CELERY_QUEUES.items()
            if CELERY[pool] in queues
        }
        if PIKA in queues:
            pika = ways[PIKA] = Pika(address)
            stack.callback(pika.close)
        loop = Loop()
        stack.callback(loop.close)
        for name, connect in ((AIO_PIKA, aio_pika_call), (FASTSTREAM, faststream_call)):
            if name in queues:
                call, close = loop.run(connect(address))
                stack.callback(_end, loop, close)
                ways[name] = Awaited(loop, call, queues[name])
        yield ways


def _end(loop: Loop, close: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    loop.run(close())


def _one(
    bench: Bench,
    address: Address,
    ways: dict[str, Way],
    pids: dict[str, tuple[int, ...]],
    missing: dict[str, str],
) -> None:
    count = bench.sized(ONE_BY_ONE, ONE_BY_ONE_SMALL)

    def run(name: str) -> Run:
        way = ways[name]
        seconds: list[float] = []

        def work() -> int:
            seconds.extend(way.timed(ARGUMENT, count))
            return len(seconds)

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
        found = latencies(seconds)
        return Run(
            value=found[50],
            jobs=count,
            client_s=meter.client_s,
            broker_s=meter.broker_s,
            latencies_ms=found,
        )

    bench.measure(
        "call.one",
        {name: partial(run, name) for name in ways},
        title="one call at a time, the median of a run",
        unit="ms",
        better="less",
        each="call",
        first=OURS["prefork"],
        missing=missing,
        notes={"calls": count, "prefetch": WIDE, "slots": SLOTS},
        libraries=LIBRARIES,
    )


def _outstanding(
    bench: Bench,
    address: Address,
    ways: dict[str, Way],
    pids: dict[str, tuple[int, ...]],
    missing: dict[str, str],
) -> None:
    count = bench.sized(OUTSTANDING, OUTSTANDING_SMALL)

    def run(name: str) -> Run:
        way = ways[name]
        meter = metered(
            bench,
            address,
            name,
            queue=way.queue,
            pids=pids[way.queue],
            count=count,
            work=partial(way.together, ARGUMENT, count),
            again=way.again,
        )
        return Run(
            value=count / meter.seconds,
            jobs=count,
            client_s=meter.client_s,
            broker_s=meter.broker_s,
        )

    bench.measure(
        "call.outstanding",
        {name: partial(run, name) for name in ways},
        title=f"calls a second, {count:,} outstanding",
        unit="calls/s",
        each="call",
        first=OURS["prefork"],
        missing=missing,
        notes={"calls": count, "prefetch": WIDE, "slots": SLOTS},
        libraries=LIBRARIES,
    )


if __name__ == "__main__":
    sys.exit(alone(__file__))
