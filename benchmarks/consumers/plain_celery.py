"""Plain Celery with the guarantees that ours has: late acks, quorum queues, nothing lost."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from benchmarks.consumers.place import CELERY_QUEUE, EXCHANGE, URL, routing_key

if TYPE_CHECKING:
    from celery import Celery


def celery_app(*, ahead: int) -> Celery:
    """Return an application of Celery's, for the RabbitMQ that the environment names.

    Args:
        ahead: how many messages are fetched for each slot, of which the command says how many
            there are.
    """
    from celery import Celery
    from kombu import Exchange, Queue

    app = Celery("bench", broker=os.environ[URL], set_as_current=False)
    app.conf.update(
        task_queues=[
            Queue(
                CELERY_QUEUE,
                Exchange(EXCHANGE, type="topic"),
                routing_key=routing_key(CELERY_QUEUE),
                queue_arguments={"x-queue-type": "quorum"},
            )
        ],
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=ahead,
        broker_connection_retry_on_startup=True,
    )
    return app
