"""Celery's consumer without what needs rights or breaks on quorum queues."""

from __future__ import annotations

from typing import Any

from celery.worker.consumer.consumer import Consumer
from celery.worker.consumer.control import Control
from celery.worker.consumer.events import Events
from celery.worker.consumer.tasks import Tasks


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
        prefetch = getattr(self.controller, "prefetch", None)
        if prefetch is not None:
            self.initial_prefetch_count = prefetch
