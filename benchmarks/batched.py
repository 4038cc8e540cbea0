"""The contenders of `benchmarks.batches`: no-op batch jobs, a single one, and a bare client.

Whatever runs jobs adds a byte for each to a file, whose size the benchmark reads.
``python -m benchmarks.batched COUNT`` is the bare client: it consumes so many messages from
RABBITRY_URL with py-amqp, looks at none, and acknowledges a hundred at a time.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import cache
from typing import Any

from consumers.job import job

EXCHANGE, QUEUE, DEAD_QUEUE = "jobs", "jobs.normal", "jobs.dead"
SINGLE, HUNDRED, MANY = "bench.single", "bench.hundred", "bench.many"
SLOTS = 2
SMALL, LARGE = 100, 500
# As many as all slots run and a batch that is gathered meanwhile, for all of them alike.
PREFETCH = LARGE * (SLOTS + 1)
ACKED_TOGETHER = 100
TALLY = "BENCH_TALLY"

_TASK: dict[str, Any] = {"exchange": EXCHANGE, "routing_key": "normal.bench"}
TOPOLOGY = {
    "version": 1,
    "name": "bench",
    "vhost": {"default_queue_type": "quorum"},
    "exchanges": {EXCHANGE: {"type": "topic"}, "jobs.dead": {"type": "topic"}},
    "queues": {
        QUEUE: {
            "bindings": [{"exchange": EXCHANGE, "routing_key": "normal.#"}],
            "retry": {"delay": "1s", "max_delay": "1m", "limit": 5},
            "dead_letter": {"exchange": "jobs.dead"},
        },
        DEAD_QUEUE: {"bindings": [{"exchange": "jobs.dead", "routing_key": "#"}]},
    },
    "jobs": {
        SINGLE: {**_TASK, "task": "benchmarks.batched:single"},
        HUNDRED: {**_TASK, "task": "benchmarks.batched:hundred"},
        MANY: {**_TASK, "task": "benchmarks.batched:many"},
    },
    "workers": {
        "normal": {"queues": [QUEUE], "concurrency": SLOTS, "prefetch": PREFETCH},
    },
}


@job(SINGLE)
def single(value: str) -> None:
    """Count one job."""
    _add(1)


@job(HUNDRED, batch=SMALL, wait="20ms")
def hundred(value: list[str]) -> None:
    """Count the jobs of a batch."""
    _add(len(value))


@job(MANY, batch=LARGE, wait="20ms")
def many(value: list[str]) -> None:
    """Count the jobs of a batch."""
    _add(len(value))


def consume(count: int) -> None:
    """Consume so many messages with a bare client."""
    from broker.connection import Address, connect

    connection = connect(Address.parse(os.environ["RABBITRY_URL"]))
    channel = connection.default_channel
    channel.basic_qos(0, PREFETCH, False)
    seen = 0

    def take(message: Any) -> None:
        nonlocal seen
        seen += 1
        if not seen % ACKED_TOGETHER or seen == count:
            channel.basic_ack(message.delivery_tag, multiple=True)
            _add(seen % ACKED_TOGETHER or ACKED_TOGETHER)

    channel.basic_consume(QUEUE, callback=take)
    while seen < count:
        connection.drain_events()
    connection.release()
    # Until the benchmark has read what it took.
    signal.pause()


def _add(count: int) -> None:
    os.write(_file(os.getpid()), b"." * count)


@cache
def _file(pid: int) -> int:
    return os.open(os.environ[TALLY], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


if __name__ == "__main__":
    consume(int(sys.argv[1]))
