"""The job that is being run, as its message tells."""

from __future__ import annotations

import time
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any

from broker.message import CALL, DEADLINE, DELIVERY_COUNT


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


# A context variable: it follows `async def` tasks, and threads that asyncio.to_thread begins.
_CURRENT: ContextVar[CurrentJob | None] = ContextVar("rabbitry_current_job", default=None)


def current_job() -> CurrentJob | None:
    """Return the job that this code runs in, or None outside of one."""
    return _CURRENT.get()


def enter(job: CurrentJob) -> Token[CurrentJob | None]:
    """Make a job the current one; give the token to `leave` when it is over."""
    return _CURRENT.set(job)


def leave(token: Token[CurrentJob | None]) -> None:
    """Make what was current before a job the current one again."""
    _CURRENT.reset(token)


def job_of(name: str, request: Any) -> CurrentJob:
    """Return the job of a request of Celery's.

    Args:
        name: of the job.
        request: its headers are attributes.
    """
    info = request.delivery_info or {}
    count = request.get(DELIVERY_COUNT)
    deadline_ms = request.get(DEADLINE)
    return CurrentJob(
        name=name,
        id=request.id,
        attempt=(count if isinstance(count, int) else 0) + 1,
        redelivered=bool(info.get("redelivered")),
        deadline_s=deadline_ms / 1000 if isinstance(deadline_ms, (int, float)) else None,
        call=bool(request.get(CALL)),
    )
