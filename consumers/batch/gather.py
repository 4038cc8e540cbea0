"""Gathers the messages of batch jobs in the worker's own process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from celery.worker import state

from broker.body import CONTENT_TYPES
from broker.case_file import REPLAYS
from broker.message import CALL, DEADLINE, PUBLISHED, attempt_of
from consumers.batch.item import Call, Item
from consumers.batch.running import Batch
from consumers.batch.task import BatchTask

# Of one batch: more is not gathered, however many messages may be.
MOST_BYTES = 64 * 2**20
_NO_LIMITS = (None, [None, None], (None, None))


class Gatherer:
    """Collects messages until a batch is full, or its first message has waited long enough.

    One is made for each connection: with it, RabbitMQ has back what was gathered.

    Args:
        consumer: Celery's, whose messages these are.
        alone: takes a message that is to run as a job of its own.
    """

    def __init__(self, consumer: Any, alone: Callable[[Any], Any]) -> None:
        self._consumer = consumer
        self._alone = alone
        self._open: dict[str, Batch] = {}
        # The jobs whose batches a timer will look at. There is one for each: mostly a batch is full
        # before, and a timer for each of those would be called for nothing.
        self._timed: set[str] = set()
        self._tasks = {
            name: task for name, task in consumer.app.tasks.items() if isinstance(task, BatchTask)
        }

    @property
    def is_needed(self) -> bool:
        """Whether there is any batch job."""
        return bool(self._tasks)

    def take(self, message: Any) -> bool:
        """Put a message into a batch; returns whether it may be in one."""
        task = self._tasks.get(message.headers.get("task"))
        if task is None:
            return False
        item = item_of(message, time_limit_s=task.time_limit)
        if item is None:
            return False
        if item.redelivered and self._consumer.app.takeover.take(message):
            return True
        if self._consumer.app.cancelled.about(message.headers) is not None:
            return False
        batch = self._open.get(task.name)
        if batch is None:
            batch = self._open[task.name] = Batch(task, self._consumer, self._alone, self._begun)
            if task.name not in self._timed:
                self._timed.add(task.name)
                self._look_in(task.wait_s, task.name)
        batch.add(message, item)
        if len(batch) >= task.size or batch.size_bytes >= MOST_BYTES:
            del self._open[task.name]
            batch.submit()
        return True

    def close(self) -> Iterator[Batch]:
        """Gather no more; yields what no slot was asked for."""
        while self._open:
            _, batch = self._open.popitem()
            if not batch.submitted:
                yield batch

    def _look_in(self, delay_s: float, name: str) -> None:
        self._consumer.timer.call_after(delay_s, self._look, (name,))

    def _look(self, name: str) -> None:
        """Submit a job's batch that has waited long enough, or look again when it has."""
        batch = self._open.get(name)
        if batch is None or batch.submitted:
            self._timed.discard(name)
            return
        left_s = batch.due - time.monotonic()
        if left_s > 0:
            self._look_in(left_s, name)
        else:
            self._timed.discard(name)
            batch.submit()

    def _begun(self, batch: Batch) -> None:
        """Add no more to a batch that has a slot."""
        if self._open.get(batch.name) is batch:
            del self._open[batch.name]


def item_of(message: Any, *, time_limit_s: float | None) -> Item | None:
    """Return what a batch needs of a message; None for one that must run by itself.

    By itself runs what failed before: nobody knows which message of a batch has killed its
    process. So does what asks for anything that a batch has no place for: a time before which it
    may not run, an expiry or a time limit of its own, a result for a plain Celery client.

    Args:
        message: kombu's.
        time_limit_s: of the job.
    """
    headers, properties = message.headers, message.properties
    id = headers.get("id")
    if (
        not isinstance(id, str)
        or attempt_of(headers) > 1
        or headers.get(REPLAYS)
        or headers.get("eta") is not None
        or headers.get("expires") is not None
        or not _has_limit(headers.get("timelimit"), time_limit_s)
        or message.errors
        or message.content_type not in CONTENT_TYPES
        or id in state.revoked
        or (state.revoked_stamps and headers.get("stamps"))
    ):
        return None
    reply_to, call = properties.get("reply_to"), None
    if headers.get(CALL):
        if not isinstance(reply_to, str):
            return None
        published_ms = headers.get(PUBLISHED)
        call = Call(
            reply_to,
            properties.get("correlation_id") or id,
            published_ms if isinstance(published_ms, int) else None,
        )
    elif reply_to is not None and not headers.get("ignore_result"):
        return None
    deadline_ms = headers.get(DEADLINE)
    return Item(
        id,
        message.body,
        message.content_type,
        bool(message.delivery_info.get("redelivered")),
        deadline_ms if isinstance(deadline_ms, (int, float)) else None,
        call,
    )


def _has_limit(timelimit: Any, limit_s: float | None) -> bool:
    """Say whether a message's own time limits, hard and soft, are no others than the job's."""
    return timelimit in _NO_LIMITS or timelimit in ([limit_s, None], (limit_s, None))
