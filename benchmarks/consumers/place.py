"""Where the workers are measured: queues, one for each format of messages, and our daemons."""

from __future__ import annotations

from typing import Any

EXCHANGE, JOB = "jobs", "bench.noop"
# Ours is also that of the bare clients, who read the same messages. dramatiq declares its own.
QUEUE, CELERY_QUEUE, TASKIQ_QUEUE = "jobs.ours", "jobs.celery", "jobs.taskiq"
FASTSTREAM_QUEUE, DRAMATIQ_QUEUE = "jobs.faststream", "jobs.dramatiq"
DEAD_QUEUE, DRAMATIQ_DEAD_QUEUE = "dead", f"{DRAMATIQ_QUEUE}.XQ"
SLOTS = 2
POOLS = {"prefork": SLOTS, "threads": SLOTS, "solo": 1}
# How many messages are held ahead by all slots together: many, or one for each.
WIDE = 64
# What a worker is told by its environment: RabbitMQ, and how many messages it holds ahead.
URL, PREFETCH = "BENCH_URL", "BENCH_PREFETCH"


def routing_key(queue: str) -> str:
    """Return the key that leads to a queue."""
    return f"{queue.removeprefix('jobs.')}.noop"


def daemon(pool: str, prefetch: int) -> str:
    """Return the name of our worker with a pool and so many messages ahead."""
    return f"{pool}-{prefetch}"


def _queue(queue: str) -> dict[str, Any]:
    return {
        "bindings": [{"exchange": EXCHANGE, "routing_key": routing_key(queue)}],
        "retry": {"delay": "1s", "max_delay": "1m", "limit": 5},
        "dead_letter": {"exchange": "jobs.dead"},
    }


TOPOLOGY: dict[str, Any] = {
    "version": 1,
    "name": "bench",
    "vhost": {"default_queue_type": "quorum"},
    "exchanges": {EXCHANGE: {"type": "topic"}, "jobs.dead": {"type": "topic"}},
    "queues": {
        **{each: _queue(each) for each in (QUEUE, CELERY_QUEUE, TASKIQ_QUEUE, FASTSTREAM_QUEUE)},
        DEAD_QUEUE: {"bindings": [{"exchange": "jobs.dead", "routing_key": "#"}]},
    },
    "jobs": {
        JOB: {
            "exchange": EXCHANGE,
            "routing_key": routing_key(QUEUE),
            "task": "benchmarks.consumers.apps:noop",
        }
    },
    "workers": {
        daemon(pool, prefetch): {
            "queues": [QUEUE],
            "pool": pool,
            "concurrency": slots,
            "prefetch": prefetch,
        }
        for pool, slots in POOLS.items()
        for prefetch in (WIDE, slots)
    },
}
