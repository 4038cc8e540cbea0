"""The smallest worker of each kind: what `benchmarks.startup` starts.

Each is what its own documentation begins with, on a quorum queue, with two processes where it has
processes. Nothing is imported but what the one that is asked for needs.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

URL = "BENCH_URL"
SLOTS = 2
EXCHANGE = "jobs"
JOB, IDLE_JOB, CELERY_JOB = "start.double", "start.idle", "start.celery"
POOLS = ("prefork", "threads", "solo")
QUEUES = {pool: f"start.{pool}" for pool in POOLS}
# Nobody consumes these: what is published stays and is counted.
IDLE_QUEUE, CELERY_IDLE_QUEUE = "start.idle", "start.celery.idle"
CELERY_QUEUE, DRAMATIQ_QUEUE = "start.celery", "start.dramatiq"
TASKIQ_QUEUE, FASTSTREAM_QUEUE = "start.taskiq", "start.faststream"

TOPOLOGY: dict[str, Any] = {
    "version": 1,
    "name": "start",
    "vhost": {"default_queue_type": "quorum"},
    "exchanges": {EXCHANGE: {"type": "topic"}},
    "queues": {
        **{
            queue: {"bindings": [{"exchange": EXCHANGE, "routing_key": f"{pool}.#"}]}
            for pool, queue in QUEUES.items()
        },
        IDLE_QUEUE: {"bindings": [{"exchange": EXCHANGE, "routing_key": "idle.#"}]},
        CELERY_IDLE_QUEUE: {"bindings": [{"exchange": EXCHANGE, "routing_key": "celery.#"}]},
        CELERY_QUEUE: {},
        FASTSTREAM_QUEUE: {},
    },
    "jobs": {
        JOB: {
            "exchange": EXCHANGE,
            "routing_key": "prefork.double",
            "task": "benchmarks.minimal:double",
        },
        IDLE_JOB: {"exchange": EXCHANGE, "routing_key": "idle.double"},
    },
    "workers": {
        pool: {"queues": [queue], "concurrency": 1 if pool == "solo" else SLOTS, "pool": pool}
        for pool, queue in QUEUES.items()
    },
}


def _rabbitry() -> Any:
    from consumers.job import job

    @job(JOB)
    def double(value: int) -> int:
        return 2 * value

    return double


def _celery() -> Any:
    from celery import Celery
    from kombu import Queue

    app = Celery("start", broker=os.environ[URL], set_as_current=False)
    quorum = {"x-queue-type": "quorum"}
    app.conf.update(
        task_queues=[
            Queue(name, routing_key=name, queue_arguments=quorum)
            for name in (CELERY_QUEUE, CELERY_IDLE_QUEUE)
        ],
        task_default_queue=CELERY_QUEUE,
        task_acks_late=True,
        task_ignore_result=True,
        broker_connection_retry_on_startup=True,
    )

    @app.task(name=CELERY_JOB)  # type: ignore[untyped-decorator]
    def double(value: int) -> int:
        return 2 * value

    return app


def _dramatiq() -> Any:
    import dramatiq
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    broker = RabbitmqBroker(url=os.environ[URL])
    dramatiq.set_broker(broker)

    @dramatiq.actor(queue_name=DRAMATIQ_QUEUE)
    def double(value: int) -> None:
        2 * value

    return broker


def _taskiq() -> Any:
    from taskiq_aio_pika import AioPikaBroker, Queue

    broker = AioPikaBroker(os.environ[URL], task_queues=[Queue(name=TASKIQ_QUEUE)])

    @broker.task
    async def double(value: int) -> int:
        return 2 * value

    return broker


def _faststream() -> Any:
    from faststream import FastStream
    from faststream.rabbit import QueueType, RabbitBroker, RabbitQueue

    broker = RabbitBroker(os.environ[URL])
    queue = RabbitQueue(FASTSTREAM_QUEUE, queue_type=QueueType.QUORUM, durable=True)

    @broker.subscriber(queue)
    async def double(value: int) -> int:
        return 2 * value

    return FastStream(broker)


_MAKERS = {
    "double": _rabbitry,
    "celery_app": _celery,
    "dramatiq_broker": _dramatiq,
    "taskiq_broker": _taskiq,
    "faststream_app": _faststream,
}


def __getattr__(name: str) -> Any:
    """Make what a worker asks for, and nothing of the others."""
    if name not in _MAKERS:
        raise AttributeError(name)
    made = globals()[name] = _MAKERS[name]()
    return made


if __name__ == "__main__":
    # FastStream's own command wants libraries in versions that others here cannot have.
    asyncio.run(_faststream().run())
