"""What a job that is published within another one inherits from it: its deadline, and its origin.

Consumers say what runs, producers ask; so neither knows the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace

from broker.contracts import Job

# What is left of a deadline that has passed: the job is published, and nobody begins it.
_LEAST_S = 0.001


@dataclass(frozen=True, slots=True)
class Parent:
    """The job that this code runs in, as far as what it publishes inherits it.

    Attributes:
        id: of its message; None in a batch, which is many jobs.
        root_id: of the first job of all, from which it descends; None in a batch.
        deadline_s: seconds since 1970-01-01 UTC after which nobody wants it, or None.
    """

    id: str | None
    root_id: str | None
    deadline_s: float | None

    def remaining_s(self, clock: Callable[[], float] = time.time) -> float | None:
        """Seconds until the deadline, negative past it; None without one."""
        return None if self.deadline_s is None else self.deadline_s - clock()

    def at_most(self, timeout_s: float, *, now_s: float) -> float:
        """Return a timeout that ends no later than the deadline.

        Args:
            timeout_s: seconds; one that is no timeout is left to who looks at it.
            now_s: seconds since 1970-01-01 UTC.
        """
        left_s = self.remaining_s(lambda: now_s)
        if left_s is None or not timeout_s > left_s:
            return timeout_s
        return max(_LEAST_S, left_s)


# A context variable: it follows `async def` tasks, and threads that asyncio.to_thread begins.
_PARENT: ContextVar[Parent | None] = ContextVar("rabbitry_parent", default=None)


def parent() -> Parent | None:
    """Return the job that this code runs in, or None outside of one."""
    return _PARENT.get()


def enter(running: Parent | None) -> Token[Parent | None]:
    """Make a job the one that runs; give the token to `leave` when it is over."""
    return _PARENT.set(running)


def leave(token: Token[Parent | None]) -> None:
    """Make what ran before the one that runs again."""
    _PARENT.reset(token)


@contextmanager
def detached() -> Iterator[None]:
    """Publish as if from outside of any job: nothing within inherits a deadline or an origin."""
    token = enter(None)
    try:
        yield
    finally:
        leave(token)


def with_deadline(job: Job, running: Parent, own_s: float | None, *, now_s: float) -> Job:
    """Return a job with no later a deadline than the one that it is published in.

    Args:
        job: what is to be published.
        running: the job that publishes it.
        own_s: what its contract says, seconds from publishing, or None.
        now_s: seconds since 1970-01-01 UTC.
    """
    left_s = running.remaining_s(lambda: now_s)
    if left_s is None:
        return job
    own_s = own_s if job.deadline_s is None else job.deadline_s
    if own_s is not None and own_s <= left_s:
        return job
    return replace(job, deadline_s=max(_LEAST_S, left_s))
