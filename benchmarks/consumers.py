"""The contenders of `benchmarks.consume`: one no-op job, for three kinds of worker.

Each worker is started as its own documentation says; this module is what it imports. Whatever runs
a job counts it in a file of its process that the benchmark reads, which costs a third of a
microsecond and asks nobody.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

EXCHANGE = "jobs"
JOB, CELERY_JOB = "bench.noop", "bench.celery"
QUEUE, CELERY_QUEUE, DRAMATIQ_QUEUE = "jobs.ours", "jobs.celery", "jobs.dramatiq"
DEAD_QUEUE = "dead"
SLOTS = 2
WIDE = 64
NARROW = SLOTS
# Where the counts are, what Celery may fetch ahead for each slot, and where RabbitMQ is.
COUNTS, MULTIPLIER, URL = "BENCH_COUNTS", "BENCH_MULTIPLIER", "BENCH_URL"

_NOOP: dict[str, Any] = {"exchange": EXCHANGE}
TOPOLOGY = {
    "version": 1,
    "name": "bench",
    "vhost": {"default_queue_type": "quorum"},
    "exchanges": {EXCHANGE: {"type": "topic"}, "jobs.dead": {"type": "topic"}},
    "queues": {
        QUEUE: {
            "bindings": [{"exchange": EXCHANGE, "routing_key": "ours.#"}],
            "retry": {"delay": "1s", "max_delay": "1m", "limit": 5},
            "dead_letter": {"exchange": "jobs.dead"},
        },
        CELERY_QUEUE: {
            "bindings": [{"exchange": EXCHANGE, "routing_key": "celery.#"}],
            "dead_letter": {"exchange": "jobs.dead"},
        },
        DEAD_QUEUE: {"bindings": [{"exchange": "jobs.dead", "routing_key": "#"}]},
    },
    "jobs": {
        JOB: {**_NOOP, "routing_key": "ours.noop", "task": "benchmarks.consumers:noop"},
        CELERY_JOB: {**_NOOP, "routing_key": "celery.noop"},
    },
    "workers": {
        "wide": {"queues": [QUEUE], "concurrency": SLOTS, "prefetch": WIDE},
        "narrow": {"queues": [QUEUE], "concurrency": SLOTS, "prefetch": NARROW},
    },
}


class Count:
    """How many jobs this process has run, where another one can read it."""

    def __init__(self) -> None:
        self._pid = 0
        self._count = 0
        self._memory: mmap.mmap | None = None

    def add(self) -> None:
        """Count one more."""
        if self._memory is None or self._pid != os.getpid():
            self._open()
        assert self._memory is not None
        self._count += 1
        self._memory[:8] = self._count.to_bytes(8, "little")

    def _open(self) -> None:
        self._pid, self._count = os.getpid(), 0
        with (Path(os.environ[COUNTS]) / str(self._pid)).open("w+b") as file:
            file.truncate(8)
            self._memory = mmap.mmap(file.fileno(), 8)


_COUNT = Count()


def _rabbitry() -> Any:
    from consumers.job import job

    @job(JOB)
    def noop(value: str) -> None:
        _COUNT.add()

    return noop


def _celery() -> Any:
    from celery import Celery
    from kombu import Exchange, Queue

    app = Celery("bench", broker=os.environ[URL], set_as_current=False)
    app.conf.update(
        task_queues=[
            Queue(
                CELERY_QUEUE,
                Exchange(EXCHANGE, type="topic"),
                routing_key="celery.#",
                queue_arguments={"x-queue-type": "quorum"},
            )
        ],
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=int(os.environ[MULTIPLIER]),
        broker_connection_retry_on_startup=True,
    )

    @app.task(name=CELERY_JOB)  # type: ignore[untyped-decorator]
    def noop(value: str) -> None:
        _COUNT.add()

    return app


def _dramatiq() -> Any:
    import dramatiq
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    broker = RabbitmqBroker(url=os.environ[URL])
    dramatiq.set_broker(broker)

    @dramatiq.actor(queue_name=DRAMATIQ_QUEUE)
    def noop(value: str) -> None:
        _COUNT.add()

    return broker


_MAKERS = {"noop": _rabbitry, "celery_app": _celery, "dramatiq_broker": _dramatiq}


def __getattr__(name: str) -> Any:
    """Make what a worker asks for, and nothing of the others."""
    if name not in _MAKERS:
        raise AttributeError(name)
    made = globals()[name] = _MAKERS[name]()
    return made
