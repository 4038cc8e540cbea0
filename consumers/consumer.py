"""Celery's consumer without what needs rights or breaks on quorum queues."""

from __future__ import annotations

import time
from typing import Any

from amqp.exceptions import NotFound
from celery.utils.log import get_logger
from celery.worker.consumer.consumer import Consumer
from celery.worker.consumer.control import Control
from celery.worker.consumer.events import Events
from celery.worker.consumer.tasks import Tasks

logger = get_logger(__name__)

# Between looks for a queue that is missing.
MISSING_QUEUE_PAUSE_S = 0.5


class JobTasks(Tasks):  # type: ignore[misc]
    """Consumes with a prefetch of each consumer's own: RabbitMQ 4.3 denies the global one."""

    requires = (Events,)

    def qos_global(self, c: Any) -> bool:
        """Never ask for global prefetch."""
        return False


class JobControl(Control):  # type: ignore[misc]
    """Remote control, for workers that the file gives it to."""

    requires = (JobTasks,)


class JobConsumer(Consumer):  # type: ignore[misc]
    """A consumer that declares nothing and meets nobody.

    Left out are mingle and gossip (they find other workers through queues of their own) and
    native delayed delivery (it creates exchanges, queues and bindings).
    """

    # What is answered by connecting anew.
    connection_errors: tuple[type[Exception], ...]

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc]
        """The steps of a connection, in order."""

        default_steps = (
            "celery.worker.consumer.connection:Connection",
            Events,
            "celery.worker.consumer.heart:Heart",
            JobTasks,
            JobControl,
            "celery.worker.consumer.consumer:Evloop",
            "celery.worker.consumer.agent:Agent",
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A queue that is replaced is gone for a moment; Celery would end the worker.
        self.connection_errors = (*self.connection_errors, NotFound)
        prefetch = getattr(self.controller, "prefetch", None)
        if prefetch is not None:
            self.initial_prefetch_count = prefetch

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        """Hand what is not due on to RabbitMQ before it takes a slot."""
        handle = super().create_task_handler(*args, **kwargs)
        waiting = self.app.waiting

        def on_message(message: Any) -> Any:
            return None if waiting.take(message, self) else handle(message)

        return on_message

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Begin anew, after a pause where a queue is missing."""
        if isinstance(exc, NotFound):
            logger.warning(
                "no queue to consume: %s; looking again in %s s",
                exc.reply_text,
                MISSING_QUEUE_PAUSE_S,
            )
            time.sleep(MISSING_QUEUE_PAUSE_S)
        super().on_connection_error_after_connected(exc)
