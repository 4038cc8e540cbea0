"""One batch, from its first message to the ending of each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any
from uuid import uuid4

from billiard.einfo import ExceptionWithTraceback
from celery.exceptions import TaskRevokedError, TimeLimitExceeded
from celery.utils.log import get_logger
from celery.worker import state

from broker.case_file import Reason
from broker.message import CALL
from consumers.acks import CollectingChannel
from consumers.batch.item import Ending, Failed, Item, Report, Word
from consumers.batch.task import BatchTask, run_batch
from consumers.delays import queue_of
from consumers.failure.failure import Failure
from consumers.failure.request import waited_s_of
from consumers.failure.undertaker import last_reason
from consumers.logs import FIELDS

logger = get_logger("rabbitry.batches")

_OUTCOMES = {Word.DONE: "done", Word.ANSWERED: "answered", Word.REVOKED: "revoked"}


class Batch:
    """Messages of one job that are run together; to Celery's worker, one request.

    Args:
        task: of the job.
        consumer: Celery's, whose messages these are.
        alone: takes a message that is to run as a job of its own.
        begun: is told when the batch has a slot, after which nothing may be added.

    Attributes:
        due: seconds of `time.monotonic` at which it asks for a slot, full or not.
    """

    acknowledged = False

    def __init__(
        self,
        task: BatchTask,
        consumer: Any,
        alone: Callable[[Any], Any],
        begun: Callable[[Batch], None],
    ) -> None:
        self.id = str(uuid4())
        self.task = task
        self.name = task.name
        self.messages: list[Any] = []
        self.size_bytes = 0
        self.submitted = False
        self.due = time.monotonic() + task.wait_s
        self.time_start: float | None = None
        self._items: list[Item] = []
        self._consumer = consumer
        self._alone = alone
        self._begun = begun
        self._over = False
        self._observer = consumer.app.observer
        self._takeover = consumer.app.takeover
        self._queues: list[str] = []
        self._names: dict[str | None, str] = {}
        # A worker waits for what is reserved, one that drains its queues and one that stops.
        state.task_reserved(self)

    def __len__(self) -> int:
        return len(self.messages)

    def __bool__(self) -> bool:
        return True

    def add(self, message: Any, item: Item) -> None:
        """Take a message in."""
        queue = self._queue_of(message)
        self.messages.append(message)
        self._items.append(item)
        self._queues.append(queue)
        self.size_bytes += len(item.body)
        self._observer.received(
            self.name,
            queue,
            waited_s=waited_s_of(self._consumer.app, message.headers),
            redelivered=item.redelivered,
        )

    def submit(self) -> None:
        """Ask for a slot; until there is one, messages may be added."""
        if self.submitted or self._over:
            return
        self.submitted = True
        self._consumer.on_task_request(self)

    # -- what Celery's worker asks of a request -------------------------------------------

    def execute_using_pool(self, pool: Any, **_: Any) -> Any:
        """Run in a slot.

        Raises:
            TaskRevokedError: the messages are gone; the slot is free again.
        """
        self._begun(self)
        if self._over:
            raise TaskRevokedError(self.id)
        self._show_cancelled()
        # Plain ones are pickled, and read, in a fourth of the time.
        items = list(map(tuple, self._items))
        self._items = []
        return pool.apply_async(
            run_batch,
            args=(self.name, items, self._consumer.hostname),
            accept_callback=self.on_accepted,
            timeout_callback=self.on_timeout,
            callback=self.on_success,
            error_callback=self.on_failure,
            soft_timeout=self.task.soft_time_limit,
            timeout=self.task.time_limit,
            correlation_id=self.id,
        )

    def info(self, safe: bool = False) -> dict[str, Any]:
        """Describe it to `celery inspect`."""
        return {
            "id": self.id,
            "name": self.name,
            "args": [f"a batch of {len(self)} messages"],
            "kwargs": {},
            "type": self.name,
            "hostname": self._consumer.hostname,
            "time_start": self.time_start,
            "acknowledged": self.acknowledged,
            "delivery_info": {},
            "worker_pid": None,
        }

    @property
    def message(self) -> Any:
        """One of its messages, for who asks which consumer they came over."""
        return self.messages[0]

    def revoked(self) -> bool:
        """Say that it is not: its messages have ids of their own."""
        return False

    def cancel(self, *_: Any, **__: Any) -> None:
        """Do nothing: what has begun ends by itself."""

    def take_over(self, message: Any, queue: str) -> bool:
        """Go on with a new delivery of a message, where RabbitMQ has taken back the last one.

        Args:
            message: kombu's.
            queue: that it came from.
        """
        if self._over:
            return False
        for at, held in enumerate(self.messages):
            if held.headers["id"] == message.headers["id"]:
                if queue != self._queues[at] or not self._takeover.is_gone(held):
                    return False
                self.messages[at] = message
                return True
        return False

    # -- told by the pool -----------------------------------------------------------------

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Note that it runs."""
        self.time_start = time.time() - (time.monotonic() - time_accepted)
        state.task_accepted(self)
        for message in self.messages:
            # Where one that comes back while it runs is looked for.
            state.requests[message.headers["id"]] = self
        # One may have been cancelled before it could be found there.
        self._show_cancelled()
        for queue, count in Counter(self._queues).items():
            self._observer.began(self.name, queue, count=count)

    def on_success(self, report: Report, **_: Any) -> None:
        """Settle each message, in the loop's own thread: the channel belongs to it."""
        app, settle = self._consumer.app, partial(self._consumer.call_soon, self._settle, report)
        # Of a thread of this process; another process tells when RabbitMQ has its replies.
        app.undertaker.after(app.replies.unconfirmed(), self, settle)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """End what ran for too long; billiard tells `on_failure` of it, too."""
        if not soft:
            self._lost(f"it ran for longer than the time limit of {timeout:g} s", Reason.TIME_LIMIT)

    def on_failure(self, exc_info: Any, *_: Any, **__: Any) -> None:
        """End what lost its process, or could not be handed to one."""
        exc = exc_info.exception
        if isinstance(exc, ExceptionWithTraceback):
            exc = exc.exc
        if isinstance(exc, TimeLimitExceeded):
            self.on_timeout(False, exc.args[0])
        else:
            self._lost(f"{type(exc).__name__}: {exc}", Reason.KILLED)

    # -- how it ends ----------------------------------------------------------------------

    def give_back(self) -> None:
        """Return all messages to their queues, uncounted."""
        if self._over:
            return
        self._end()
        for message in self.messages:
            self._consumer.app.undertaker.give_back(message)
        self._count(["returned"] * len(self), self._ran_s)

    def lost(self) -> None:
        """Note that the connection was lost before it began: RabbitMQ has the messages again."""
        self._end()
        self._count(["returned"] * len(self), None)

    def _end(self) -> None:
        self._over = True
        self.acknowledged = True
        state.task_ready(self)
        for message in self.messages:
            if state.requests.get(message.headers["id"]) is self:
                del state.requests[message.headers["id"]]

    def _lost(self, text: str, reason: Reason) -> None:
        """Return what may be tried again: one by one, so that the culprit is alone then."""
        if self._over:
            return
        if state.should_terminate is not None:
            # The worker itself has ended the process: that is no failure of the jobs'.
            self.give_back()
            return
        logger.error(
            "a batch of %d messages of job %s was ended (%s); each of them runs by itself next: %s",
            *(len(self), self.name, reason, text),
        )
        text = f"the batch of {len(self)} messages that it was in was ended: {text}"
        failed = Failed(Failure(reason, "", text), again=True)
        self._settle(Report([failed] * len(self), self._ran_s or 0.0), quiet=True)

    def _settle(self, report: Report, *, quiet: bool = False) -> None:
        if self._over:
            return
        self._end()
        outcomes: list[str] = []
        done: list[Any] = []
        gone = self._gone()
        for message, queue, ending, is_gone in zip(
            self.messages, self._queues, report.endings, gone, strict=True
        ):
            if is_gone:
                outcomes.append(self._settle_gone(message, queue, ending))
            elif type(ending) is Word and ending in _OUTCOMES:
                done.append(message)
                outcomes.append(_OUTCOMES[ending])
            else:
                outcomes.append(self._settle_one(message, ending))
        self._acknowledge(done)
        self._count(outcomes, None if self.time_start is None else report.ran_s)
        if any(gone):
            logger.warning(
                "%d messages of batch job %s are back in their queues since the connection that"
                " they came over was lost; what is done of them does not run again here",
                *(sum(gone), self.name),
            )
        if not quiet:
            counts = Counter(outcomes)
            fields = {"job": self.name, "messages": len(self), **counts, "ran_s": report.ran_s}
            logger.info(
                "batch of job %s: %s, in %.3f s",
                *(self.name, _words(counts.items()), report.ran_s),
                extra={FIELDS: fields},
            )

    def _settle_gone(self, message: Any, queue: str, ending: Ending) -> str:
        outcome = _OUTCOMES.get(ending) if isinstance(ending, Word) else None
        if outcome is None:
            return "returned"
        self._takeover.done(message, message.headers["id"], queue)
        return outcome

    def _settle_one(self, message: Any, ending: Ending) -> str:
        errors, undertaker = self._consumer.connection_errors, self._consumer.app.undertaker
        if isinstance(ending, Failed):
            if ending.again and undertaker.has_attempts(message):
                if not undertaker.try_again(message):
                    message.reject_log_error(logger, errors, requeue=True)
                return "retried"
            failure, rule = ending.failure, undertaker.rule_of(message)
            reason = last_reason(failure.reason, rule.limit if rule else None)
            failure = Failure(reason, failure.error, failure.message, failure.traceback)
            if message.headers.get(CALL):
                # Its process is gone, or it would be answered.
                self._consumer.give_up(message, failure)
                return "answered"
            undertaker.bury(message, failure)
            return "revoked" if failure.reason is Reason.CANCELLED else "dead"
        if ending is Word.ALONE:
            self._alone(message)
            return "returned"
        undertaker.give_back(message)
        return "returned"

    def _gone(self) -> list[bool]:
        """Say of each message whether RabbitMQ may have it back; those of a consumer are alike."""
        known: dict[tuple[Any, str | None], bool] = {}
        found = []
        for message in self.messages:
            way = message.channel, message.delivery_info.get("consumer_tag")
            is_gone = known.get(way)
            if is_gone is None:
                is_gone = known[way] = self._takeover.is_gone(message)
            found.append(is_gone)
        return found

    def _acknowledge(self, messages: Sequence[Any]) -> None:
        """Acknowledge what is done; mostly all of it came over one channel."""
        channels = {message.channel for message in messages}
        if len(channels) == 1:
            (channel,) = channels
            if isinstance(channel, CollectingChannel) and channel.ack_all(messages):
                return
        for message in messages:
            message.ack_log_error(logger, self._consumer.connection_errors)

    def _show_cancelled(self) -> None:
        cancelled = self._consumer.app.cancelled
        # Mostly there are none: what is asked for each message is asked thousands of times.
        for message in self.messages if len(cancelled) else ():
            cancelled.show(message.headers)

    def _count(self, outcomes: Sequence[str], ran_s: float | None) -> None:
        """Tell what became of the messages, in their order."""
        ended = Counter(zip(self._queues, outcomes, strict=True))
        for (queue, outcome), count in ended.items():
            self._observer.ended(self.name, queue, outcome, ran_s=ran_s, count=count)

    def _queue_of(self, message: Any) -> str:
        tag = message.delivery_info.get("consumer_tag")
        queue = self._names.get(tag)
        if queue is None:
            # Asked while the connection is there: afterwards nobody knows.
            queue = self._names[tag] = queue_of(self._consumer, tag) or ""
        return queue

    @property
    def _ran_s(self) -> float | None:
        return None if self.time_start is None else max(0.0, time.time() - self.time_start)


def _words(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in counts)
