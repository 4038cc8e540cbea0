"""The job that is being run, as its message tells."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar, Token
from dataclasses import InitVar, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from broker import inherited
from broker.inherited import Parent
from broker.message import CALL, DEADLINE, attempt_of
from broker.reply import progress_of

if TYPE_CHECKING:
    from consumers.replies_news import News


def never(*_: object) -> bool:
    """Say that no job is cancelled."""
    return False


class _Lines:
    """What a job asks and tells through.

    No fields: people make dictionaries of the current job, copy it and send it.
    """

    __slots__ = ("_is_cancelled", "_news")

    _is_cancelled: Callable[[str], bool]
    _news: News | None


@dataclass(frozen=True, slots=True)
class CurrentJob(_Lines):
    """The job that is being run, as its message tells.

    Attributes:
        name: of the job.
        id: of its message; the same when the message is delivered again.
        attempt: 1 for the first; failed deliveries are counted.
        redelivered: whether RabbitMQ has delivered the message before.
        deadline_s: seconds since 1970-01-01 UTC after which nobody wants it, or None.
        call: whether a caller waits for the reply.
        root_id: of the first job of all, from which this one descends; None where nobody knows.
        is_cancelled: says of an id whether it is; see `cancelled`.
        tells: what tells that caller how far it is, where it wants to know.
    """

    name: str
    id: str
    attempt: int
    redelivered: bool
    deadline_s: float | None
    call: bool
    root_id: str | None = None
    is_cancelled: InitVar[Callable[[str], bool]] = never
    tells: InitVar[News | None] = None

    def __post_init__(self, is_cancelled: Callable[[str], bool], tells: News | None) -> None:
        """Keep what is no part of the value."""
        object.__setattr__(self, "_is_cancelled", is_cancelled)
        object.__setattr__(self, "_news", tells)

    @property
    def news(self) -> News | None:
        """What tells the caller how far the job is, where it wants to know; see `progress`."""
        return getattr(self, "_news", None)

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the deadline, negative past it; None without one."""
        return None if self.deadline_s is None else self.deadline_s - time.time()

    @property
    def cancelled(self) -> bool:
        """Whether its caller has given up, or it was cancelled by hand; cheap to ask often.

        A task that finds it so raises `Cancelled`, or goes on: that is for the task to decide.
        """
        return getattr(self, "_is_cancelled", never)(self.id)

    def progress(
        self, fraction: float | None = None, *, text: str | None = None, partial: Any = None
    ) -> None:
        """Tell the caller how far the job is; costs nothing where nobody asked to be told.

        At most twenty a second are sent, and the last one always; a later one takes the place of
        one that has not been sent. What brings a partial result is never left out. To a job that is
        no call, and within a batch, nobody listens.

        Args:
            fraction: from 0 to 1.
            text: for people.
            partial: what there is of the result; anything that a result may be, arrays too.

        Raises:
            InvalidInput: the fraction is no number from 0 to 1, or the text none.
            InvalidMessage: the partial result cannot be put into a message.
        """
        value = progress_of(fraction, text, partial)
        if self.news is not None:
            self.news.progress(value)


# A context variable: it follows `async def` tasks, and threads that asyncio.to_thread begins.
_CURRENT: ContextVar[CurrentJob | None] = ContextVar("rabbitry_current_job", default=None)


# Of a batch, whose task has many jobs and no current one. Most never ask for them.
_BATCH: ContextVar[Callable[[], tuple[CurrentJob, ...]] | None] = ContextVar(
    "rabbitry_current_batch", default=None
)


def current_job() -> CurrentJob | None:
    """Return the job that this code runs in, or None outside of one, and in a batch."""
    return _CURRENT.get() if _BATCH.get() is None else None


def current_jobs() -> tuple[CurrentJob, ...]:
    """Return the jobs that this code runs for: those of a batch in its order, one, or none."""
    batch, current = _BATCH.get(), _CURRENT.get()
    if batch is not None:
        return batch()
    return () if current is None else (current,)


Entered = tuple[Token[CurrentJob | None], Token[Parent | None]]
EnteredBatch = tuple[Token[Callable[[], tuple[CurrentJob, ...]] | None], Token[Parent | None]]


def enter(job: CurrentJob) -> Entered:
    """Make a job the current one; give the token to `leave` when it is over."""
    parent = Parent(job.id, job.root_id or job.id, job.deadline_s)
    return _CURRENT.set(job), inherited.enter(parent)


def leave(token: Entered) -> None:
    """Make what was current before a job the current one again."""
    current, parent = token
    _CURRENT.reset(current)
    inherited.leave(parent)


def enter_batch(
    jobs: Callable[[], tuple[CurrentJob, ...]], deadlines: Sequence[float | None]
) -> EnteredBatch:
    """Make jobs those of the batch that runs; give the token to `leave_batch` when it is over.

    Args:
        jobs: returns them; called when they are asked for, once.
        deadlines: of each, seconds since 1970-01-01 UTC, or None.
    """
    known = [each for each in deadlines if each is not None]
    # What a batch publishes is wanted for as long as any job of it.
    latest = max(known) if known and len(known) == len(deadlines) else None
    return _BATCH.set(cache(jobs)), inherited.enter(Parent(None, None, latest))


def leave_batch(token: EnteredBatch) -> None:
    """Make the jobs before the batch the current ones again."""
    batch, parent = token
    _BATCH.reset(batch)
    inherited.leave(parent)


def job_of(
    name: str,
    request: Any,
    *,
    news: News | None = None,
    is_cancelled: Callable[[str], bool] = never,
) -> CurrentJob:
    """Return the job of a request of Celery's.

    Args:
        name: of the job.
        request: its headers are attributes.
        news: what tells its caller how far it is.
        is_cancelled: says of an id whether it is.
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
        root_id=request.get("root_id"),
        is_cancelled=is_cancelled,
        tells=news,
    )
