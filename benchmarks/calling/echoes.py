"""Who answers in `benchmarks.call` and `benchmarks.arrays`: one job that returns what it is given.

Each worker is what its own documentation says, with two slots, 64 messages fetched ahead and an
acknowledgement after its reply. `python -m benchmarks.calling.echoes NAME` runs those that have no
command of their own. Nothing is imported but what the one that is asked for needs.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import loop

URL = "BENCH_URL"
EXCHANGE = "jobs"
SLOTS = 2
WIDE = 64
POOLS = ("prefork", "threads", "solo")
QUEUES = {pool: f"echo.{pool}" for pool in POOLS}
CELERY_QUEUES = {pool: f"echo.celery.{pool}" for pool in POOLS}
PICKLE = "pickle"
PICKLE_QUEUE = f"echo.celery.{PICKLE}"
PIKA_QUEUE, AIO_PIKA_QUEUE, FASTSTREAM_QUEUE = "echo.pika", "echo.aio-pika", "echo.faststream"
_QUORUM = {"x-queue-type": "quorum"}


def slots(pool: str) -> int:
    """Return how many jobs a worker of this pool runs at a time."""
    return 1 if pool == "solo" else SLOTS


TOPOLOGY: dict[str, Any] = {
    "version": 1,
    "name": "echo",
    "vhost": {"default_queue_type": "quorum"},
    "exchanges": {EXCHANGE: {"type": "topic"}},
    "queues": {
        # What a peer needs with settings of its own it declares itself.
        **{
            queue: {"bindings": [{"exchange": EXCHANGE, "routing_key": queue}]}
            for queue in (*QUEUES.values(), *CELERY_QUEUES.values(), PICKLE_QUEUE)
        },
        PIKA_QUEUE: {},
    },
    "jobs": {
        queue: {
            "exchange": EXCHANGE,
            "routing_key": queue,
            "task": f"benchmarks.calling.echoes:{pool}",
        }
        for pool, queue in QUEUES.items()
    },
    "workers": {
        pool: {"queues": [queue], "pool": pool, "concurrency": slots(pool), "prefetch": WIDE}
        for pool, queue in QUEUES.items()
    },
}


def _rabbitry(pool: str) -> Any:
    from consumers.job import job

    @job(QUEUES[pool])
    def echo(value: object) -> object:
        return value

    return echo


def celery_app(url: str, *, serializer: str = "json") -> Any:
    """Return a Celery application with a job for each pool, or with the one that is pickled."""
    from celery import Celery
    from kombu import Exchange, Queue

    app = Celery("echo", broker=url, backend="rpc://", set_as_current=False)
    queues = (PICKLE_QUEUE,) if serializer == PICKLE else tuple(CELERY_QUEUES.values())
    exchange = Exchange(EXCHANGE, type="topic")
    app.conf.update(
        task_queues=[
            Queue(queue, exchange, routing_key=queue, queue_arguments=_QUORUM) for queue in queues
        ],
        task_routes={queue: {"queue": queue} for queue in queues},
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_serializer=serializer,
        result_serializer=serializer,
        accept_content=[serializer],
        broker_connection_retry_on_startup=True,
    )
    for queue in queues:

        @app.task(name=queue, shared=False)  # type: ignore[untyped-decorator]
        def echo(value: object) -> object:
            return value

    return app


def _pika() -> None:
    import pika

    channel = pika.BlockingConnection(pika.URLParameters(os.environ[URL])).channel()
    channel.basic_qos(prefetch_count=WIDE // SLOTS)

    def answer(channel: Any, method: Any, properties: Any, body: bytes) -> None:
        channel.basic_publish(
            "",
            properties.reply_to,
            body,
            pika.BasicProperties(correlation_id=properties.correlation_id),
        )
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume(PIKA_QUEUE, answer)
    channel.start_consuming()


async def _aio_pika() -> None:
    import aio_pika
    from aio_pika.patterns import JsonRPC

    async def echo(*, value: object) -> object:
        return value

    connection = await aio_pika.connect_robust(os.environ[URL])
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=WIDE // SLOTS)
    # Exclusive: RabbitMQ no longer has transient queues that are not, unless it is told to.
    rpc = await JsonRPC.create(channel, exclusive=True)
    await rpc.register(AIO_PIKA_QUEUE, echo, durable=True, arguments=dict(_QUORUM))
    await asyncio.Future()


async def _faststream() -> None:
    from faststream import AckPolicy, FastStream
    from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

    broker = RabbitBroker(os.environ[URL])
    queue = RabbitQueue(FASTSTREAM_QUEUE, queue_type=QueueType.QUORUM, durable=True)
    ahead = Channel(prefetch_count=WIDE // SLOTS)

    @broker.subscriber(queue, channel=ahead, ack_policy=AckPolicy.NACK_ON_ERROR)
    async def echo(value: str) -> str:
        return value

    await FastStream(broker).run()


_RUN: dict[str, Callable[[], None]] = {
    PIKA_QUEUE: _pika,
    AIO_PIKA_QUEUE: lambda: loop.run(_aio_pika()),
    FASTSTREAM_QUEUE: lambda: loop.run(_faststream()),
}


def __getattr__(name: str) -> Any:
    """Make what a worker asks for, and nothing of the others."""
    if name in POOLS:
        made = _rabbitry(name)
    elif name in ("celery_json", "celery_pickle"):
        made = celery_app(os.environ[URL], serializer=name.removeprefix("celery_"))
    else:
        raise AttributeError(name)
    globals()[name] = made
    return made


if __name__ == "__main__":
    _RUN[sys.argv[1]]()
