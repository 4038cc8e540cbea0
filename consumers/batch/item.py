"""One message of a batch, as it travels to the process that runs it, and its ending back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from celery.app.task import Context

from broker.message import CALL, PUBLISHED
from consumers.current import CurrentJob
from consumers.failure.failure import Failure


class Item(NamedTuple):
    """What a task's process needs of one message; a plain tuple, since there are thousands.

    Attributes:
        id: of the message.
        body: as it came.
        content_type: of it.
        redelivered: whether RabbitMQ has delivered it before.
        deadline_ms: milliseconds since 1970-01-01 UTC after which nobody wants it, or None.
        call: where a caller waits, what the reply needs; else None.
    """

    id: str
    body: Any
    content_type: str
    redelivered: bool
    deadline_ms: float | None
    call: Call | None

    @property
    def deadline_s(self) -> float | None:
        """Seconds since 1970-01-01 UTC after which nobody wants it, or None."""
        return None if self.deadline_ms is None else self.deadline_ms / 1000


class Call(NamedTuple):
    """Where a call's reply goes.

    Attributes:
        reply_to: the caller's queue.
        correlation_id: by which it knows the reply.
        published_ms: when it was published, milliseconds since 1970-01-01 UTC, or None.
    """

    reply_to: str
    correlation_id: str
    published_ms: int | None


class Word(Enum):
    """Endings that need no more than a word."""

    DONE = 1
    ANSWERED = 2  # a call that got an error
    ALONE = 3  # not begun: it is to run as a job of its own
    RETURNED = 4  # run, but its reply could not be sent
    REVOKED = 5  # a call that was cancelled, and told so


class Failed(NamedTuple):
    """A message that failed.

    Attributes:
        failure: why.
        again: whether another attempt may mend it.
    """

    failure: Failure
    again: bool


Ending = Word | Failed


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a batch.

    Attributes:
        endings: of its messages, in order.
        ran_s: how long the task ran, seconds.
    """

    endings: Sequence[Ending]
    ran_s: float


def job_of(name: str, item: Item, *, is_cancelled: Callable[[str], bool]) -> CurrentJob:
    """Return the job that a message of a batch is; it was never tried before."""
    return CurrentJob(
        name=name,
        id=item.id,
        attempt=1,
        redelivered=item.redelivered,
        deadline_s=item.deadline_s,
        call=item.call is not None,
        is_cancelled=is_cancelled,
    )


def context_of(item: Item, *, hostname: str, started_ms: int) -> Context:
    """Return what Celery's result backend asks of the request of a call."""
    assert item.call is not None
    context = Context(
        {
            "id": item.id,
            "reply_to": item.call.reply_to,
            "correlation_id": item.call.correlation_id,
            PUBLISHED: item.call.published_ms,
            CALL: True,
        }
    )
    context.hostname, context.started_ms = hostname, started_ms
    return context
