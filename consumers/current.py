"""The job that is being run, as its message tells."""

from __future__ import annotations

import time
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any

from broker.message import CALL, DEADLINE, attempt_of


@dataclass(frozen=True, slots=True)
class CurrentJob:
    """The job that is being run, as its message tells.

    Attributes:
        name: of the job.
        id: of its message; the same when the message is delivered again.
        attempt: 1 for the first; failed deliveries are counted.
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


# A context variable: it follows `async def` tasks, and threads that asyncio.to_thread begins.
_CURRENT: ContextVar[CurrentJob | None] = ContextVar("rabbitry_current_job", default=None)


# Of a batch, whose task has many jobs and no current one.
_BATCH: ContextVar[tuple[CurrentJob, ...]] = ContextVar("rabbitry_current_batch", default=())


def current_job() -> CurrentJob | None:
    """Return the job that this code runs in, or None outside of one, and in a batch."""
    return None if _BATCH.get() else _CURRENT.get()


def current_jobs() -> tuple[CurrentJob, ...]:
    """Return the jobs that this code runs for: those of a batch in its order, one, or none."""
    batch, current = _BATCH.get(), _CURRENT.get()
    return batch or (() if current is None else (current,))


def enter(job: CurrentJob) -> Token[CurrentJob | None]:
    """Make a job the current one; give the token to `leave` when it is over."""
    return _CURRENT.set(job)


def leave(token: Token[CurrentJob | None]) -> None:
    """Make what was current before a job the current one again."""
    _CURRENT.reset(token)


def enter_batch(jobs: tuple[CurrentJob, ...]) -> Token[tuple[CurrentJob, ...]]:
    """Make jobs those of the batch that runs; give the token to `leave_batch` when it is over."""
    return _BATCH.set(jobs)


def leave_batch(token: Token[tuple[CurrentJob, ...]]) -> None:
    """Make the jobs before the batch the current ones again."""
    _BATCH.reset(token)


def job_of(name: str, request: Any) -> CurrentJob:
    """Return the job of a request of Celery's.

    Args:
        name: of the job.
        request: its headers are attributes.
    """
    info = request.delivery_info or {}
    deadline_ms = request.get(DEADLINE)
    attempt = attempt_of(request)
    return CurrentJob(
        name=name,
        id=request.id,
        attempt=attempt,
        # What waited on the delay ladder is a new message to RabbitMQ.
        redelivered=bool(info.get("redelivered")) or attempt > 1,
        deadline_s=deadline_ms / 1000 if isinstance(deadline_ms, (int, float)) else None,
        call=bool(request.get(CALL)),
    )
