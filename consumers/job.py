"""The task base: what every job does around the function that runs it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import celery
from celery.exceptions import Ignore, Reject, Retry
from celery.utils.log import get_task_logger

from broker.errors import InvalidArguments, PublishFailed, RabbitryError
from broker.message import CALL, DEADLINE, DELIVERY_COUNT, PUBLISHED
from consumers.signature import Array, Signature

__all__ = ["Array", "CurrentJob", "DeadlinePassed", "JobTask", "current_job", "job"]

logger = get_task_logger("rabbitry.job")


class DeadlinePassed(RabbitryError):
    """The job was not begun: nobody wants its result any more."""


@dataclass(frozen=True, slots=True)
class CurrentJob:
    """The job that is being run, as its message tells.

    Attributes:
        name: of the job.
        id: of its message; the same when the message is delivered again.
        attempt: 1 for the first; RabbitMQ counts failed deliveries.
        redelivered: whether RabbitMQ has delivered the message before.
        deadline_s: seconds since 1970-01-01 UTC after which nobody wants it, or None.
        call: whether a caller waits for the reply.
    """

    name: str
    id: str
    attempt: int
    redelivered: bool
    deadline_s: float | None
    call: bool

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the deadline, negative past it; None without one."""
        return None if self.deadline_s is None else self.deadline_s - time.time()


def current_job() -> CurrentJob | None:
    """Return the job that this code runs in, or None outside of one."""
    task = celery.current_task
    if not task or task.request.called_directly:
        return None
    return _job_of(task)


def job(name: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Make a function the task of a job.

    The function stays callable as it is. Run by a worker, its arguments are checked against its
    signature first; an exception returns the message to RabbitMQ, which delivers it again after
    the queue's retry delay and dead-letters it past the limit.

    Args:
        name: of the job, as the topology has it.
        options: of Celery's task.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        takes = Signature(name, function, bound=bool(options.get("bind")))
        return celery.shared_task(name=name, base=JobTask, takes=takes, **options)(function)

    return decorate


class JobTask(celery.Task):  # type: ignore[misc]
    """Celery's task with late ack and RabbitMQ's own retry."""

    abstract = True
    acks_late = True
    reject_on_worker_lost = True
    # Of the result in the log, in characters.
    resultrepr_maxsize = 200
    # Arguments are checked by the signature, with better words.
    typing = False
    # Not `signature`: that is how Celery makes the parts of a chain, and a retry.
    takes: Signature

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.request.called_directly:
            return self.run(*args, **kwargs)
        current = _job_of(self)
        self.request.started_ms = round(time.time() * 1000)
        try:
            remaining_s = current.remaining_s
            if remaining_s is not None and remaining_s <= 0:
                raise DeadlinePassed(
                    f"job {current.name!r} ({current.id}) was not begun: its deadline passed"
                    f" {-remaining_s:.1f} s ago"
                )
            args, kwargs = type(self).takes.bind(args, kwargs)
            return self.run(*args, **kwargs)
        except (Reject, Ignore, Retry):
            raise
        except Exception as exc:
            if current.call:
                # The caller is there to decide: it gets the error now, and no second attempt.
                raise
            final = isinstance(exc, (InvalidArguments, DeadlinePassed))
            logger.warning(
                "job %s (%s) failed in attempt %d, %s: %s: %s",
                current.name,
                current.id,
                current.attempt,
                "given up" if final else "returned to RabbitMQ",
                type(exc).__name__,
                exc,
                exc_info=not final,
            )
            # Celery logs what it rejects too, with every chained traceback: one is enough.
            raise Reject(f"{type(exc).__name__}: {exc}", requeue=not final) from None

    def retry(self, *args: Any, **kwargs: Any) -> Any:
        """Send the task again, as Celery does; RabbitMQ holds it until the countdown is over.

        Raises:
            Retry: it is sent, and this run of it is over.
            Reject: it could not be sent; where waiting may mend that, it goes back to its queue.
        """
        try:
            return super().retry(*args, **kwargs)
        except Reject as exc:
            if isinstance(exc.reason, PublishFailed):
                raise Reject(exc.reason, requeue=True) from exc
            raise


def _job_of(task: Any) -> CurrentJob:
    request = task.request
    info = request.delivery_info or {}
    deadline_ms = request.get(DEADLINE)
    return CurrentJob(
        name=task.name,
        id=request.id,
        attempt=int(request.get(DELIVERY_COUNT) or 0) + 1,
        redelivered=bool(info.get("redelivered")),
        deadline_s=deadline_ms / 1000 if isinstance(deadline_ms, (int, float)) else None,
        call=bool(request.get(CALL)),
    )


def published_ms_of(request: Any) -> int | None:
    """Return when a request's message was published, milliseconds since 1970-01-01 UTC."""
    value = request.get(PUBLISHED)
    return value if isinstance(value, int) else None
