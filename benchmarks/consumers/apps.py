"""The no-op job for each library, in the settings that its documentation advises.

All acknowledge a job when it is done. Nothing is imported but what the one that is asked for needs.
"""

from __future__ import annotations

import os
from typing import Any

from benchmarks.consumers import plain_celery
from benchmarks.consumers.account import Account
from benchmarks.consumers.place import (
    DRAMATIQ_QUEUE,
    EXCHANGE,
    FASTSTREAM_QUEUE,
    JOB,
    PREFETCH,
    SLOTS,
    TASKIQ_QUEUE,
    URL,
    routing_key,
)

_ACCOUNT = Account()


def _rabbitry() -> Any:
    from consumers.job import job

    @job(JOB)
    def noop(value: str) -> None:
        _ACCOUNT.add(value)

    return noop


def _celery() -> Any:
    app = plain_celery.celery_app(ahead=int(os.environ[PREFETCH]))

    @app.task(name=JOB)  # type: ignore[untyped-decorator]
    def noop(value: str) -> None:
        _ACCOUNT.add(value)

    return app


def _dramatiq() -> Any:
    import dramatiq
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    broker = RabbitmqBroker(url=os.environ[URL])
    dramatiq.set_broker(broker)

    @dramatiq.actor(actor_name=JOB, queue_name=DRAMATIQ_QUEUE)
    def noop(value: str) -> None:
        _ACCOUNT.add(value)

    return broker


def _taskiq() -> Any:
    from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

    broker = AioPikaBroker(
        os.environ[URL],
        qos=int(os.environ[PREFETCH]) // SLOTS,
        exchange=Exchange(name=EXCHANGE, declare=False),
        task_queues=[
            Queue(name=TASKIQ_QUEUE, routing_key=routing_key(TASKIQ_QUEUE), declare=False)
        ],
        # It wants one to exist; the queue's own is elsewhere.
        dead_letter_queue=Queue(name=TASKIQ_QUEUE, declare=False),
    )

    @broker.task(task_name=JOB)
    async def noop(value: str) -> None:
        _ACCOUNT.add(value)

    return broker


def _faststream() -> Any:
    from faststream import FastStream
    from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

    channel = Channel(prefetch_count=int(os.environ[PREFETCH]) // SLOTS)
    # It would log two lines for each message.
    broker = RabbitBroker(os.environ[URL], default_channel=channel, logger=None)

    @broker.subscriber(RabbitQueue(FASTSTREAM_QUEUE, declare=False))
    async def noop(value: str) -> None:
        _ACCOUNT.add(value)

    return FastStream(broker, logger=None)


_MAKERS = {
    "noop": _rabbitry,
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
