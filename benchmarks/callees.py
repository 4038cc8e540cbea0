"""Who answers in `benchmarks.calls`: one job that returns what it is given, three ways.

`python -m benchmarks.callees` is the third: a consumer of pika's that sends each body back.
"""

from __future__ import annotations

import os
from typing import Any

EXCHANGE = "jobs"
SLOTS = 2
WIDE = 64
CELERY_QUEUE, CELERY_JOB, PIKA_QUEUE = "calls.celery", "bench.celery", "calls.pika"
POOLS = ("prefork", "threads", "solo")
URL = "BENCH_URL"

TOPOLOGY: dict[str, Any] = {
    "version": 1,
    "name": "bench",
    "vhost": {"default_queue_type": "quorum"},
    "exchanges": {EXCHANGE: {"type": "topic"}},
    "queues": {
        **{
            f"calls.{each}": {"bindings": [{"exchange": EXCHANGE, "routing_key": f"{each}.#"}]}
            for each in (*POOLS, "celery")
        },
        PIKA_QUEUE: {},
    },
    "jobs": {
        f"bench.{each}": {
            "exchange": EXCHANGE,
            "routing_key": f"{each}.echo",
            "task": f"benchmarks.callees:{each}",
        }
        for each in POOLS
    },
    "workers": {
        each: {
            "queues": [f"calls.{each}"],
            "pool": each,
            "concurrency": 1 if each == "solo" else SLOTS,
            "prefetch": WIDE,
        }
        for each in POOLS
    },
}


def _rabbitry(pool: str) -> Any:
    from consumers.job import job

    @job(f"bench.{pool}")
    def echo(value: object) -> object:
        return value

    return echo


def _celery() -> Any:
    from celery import Celery
    from kombu import Exchange, Queue

    app = Celery("bench", broker=os.environ[URL], backend="rpc://", set_as_current=False)
    app.conf.update(
        task_queues=[
            Queue(
                CELERY_QUEUE,
                Exchange(EXCHANGE, type="topic"),
                routing_key="celery.#",
                queue_arguments={"x-queue-type": "quorum"},
            )
        ],
        task_routes={
            CELERY_JOB: {"exchange": EXCHANGE, "routing_key": "celery.echo", "queue": CELERY_QUEUE}
        },
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=WIDE // SLOTS,
        broker_connection_retry_on_startup=True,
    )

    @app.task(name=CELERY_JOB)  # type: ignore[untyped-decorator]
    def echo(value: object) -> object:
        return value

    return app


def __getattr__(name: str) -> Any:
    """Make what a worker asks for, and nothing of the others."""
    if name in POOLS:
        made = _rabbitry(name)
    elif name == "celery_app":
        made = _celery()
    else:
        raise AttributeError(name)
    globals()[name] = made
    return made


def main() -> None:
    """Answer each message with its body, by pika alone."""
    import pika

    channel = pika.BlockingConnection(pika.URLParameters(os.environ[URL])).channel()
    channel.basic_qos(prefetch_count=WIDE)

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


if __name__ == "__main__":
    main()
