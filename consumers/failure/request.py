"""Celery's request, seen from the worker's own process: which ending each failure has."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery import signals
from celery.exceptions import (
    Ignore,
    InvalidTaskError,
    Reject,
    Retry,
    Terminated,
    TimeLimitExceeded,
    WorkerLostError,
)
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import Request
from celery.worker.state import task_ready
from kombu.exceptions import EncodeError

from broker.body import JSON, is_plain_json
from broker.case_file import Reason
from broker.message import ATTEMPT, CALL, PUBLISHED, attempt_of
from broker.receipt import Receipt
from consumers.cancel.jobs import refusal
from consumers.delays import FROM, due_of
from consumers.failure.failure import Failure
from consumers.failure.undertaker import Undertaker, last_reason
from consumers.kept import NotStored
from consumers.logs import log_ended

logger = get_logger("rabbitry.job")

_LOST = (WorkerLostError, SystemExit, KeyboardInterrupt)
# Of a body: up to here its arguments travel to a process as quickly as their text.
_DECODED_CHARACTERS = 4096


class JobRequest(Request):  # type: ignore[misc]
    """A message that became a job.

    What fails goes back to RabbitMQ while its queue delivers it again, and becomes a dead letter
    after that; a call is answered with the error. Either happens once, however many of Celery's
    handlers tell of it.
    """

    time_limits: tuple[float | None, float | None]
    acknowledged: bool
    time_start: float | None
    _message: Any
    # What the pool gets, with its content type; one without is decoded.
    _body: Any
    _content_type: str | None
    _over = False
    # What acknowledging it means, and what the observer was told that became of it.
    _ending = "done"
    _outcome: str | None = None
    _already_revoked: bool
    # To a call, from this process: it is acknowledged when RabbitMQ has them.
    _replies: Sequence[Receipt] | None = None

    def __init__(self, message: Any, *args: Any, **options: Any) -> None:
        try:
            super().__init__(message, *args, **options)
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as exc:
            # Celery's consumer has an answer to this one only; by others its process ends.
            raise InvalidTaskError(f"{type(exc).__name__}: {exc}") from exc
        # No message may ask for more time than its job has.
        soft, hard = (*self.time_limits, None, None)[:2]
        if hard and self.task.time_limit:
            self.time_limits = (soft, min(hard, self.task.time_limit))
        self._decode_once()
        headers = self._request_dict
        self._queue = str(headers.get(FROM) or "")
        redelivered = bool(headers["delivery_info"]["redelivered"]) or ATTEMPT in headers
        self._waited_s = waited_s_of(self._app, headers)
        self._app.observer.received(
            self._type, self._queue, waited_s=self._waited_s, redelivered=redelivered
        )

    def _decode_once(self) -> None:
        """Hand a small body on as it was decoded to be looked at, rather than as text."""
        body = self._body
        if (
            self._content_type == JSON
            and isinstance(body, str)
            and len(body) <= _DECODED_CHARACTERS
            and is_plain_json(body)
        ):
            self._body, self._content_type = self._payload, None

    @property
    def _undertaker(self) -> Undertaker:
        undertaker: Undertaker = self._app.undertaker
        return undertaker

    @property
    def _is_call(self) -> bool:
        return bool(self._request_dict.get(CALL))

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Note that it runs."""
        super().on_accepted(pid, time_accepted)
        if self._outcome is None:
            self._app.observer.began(self._type, self._queue)

    def on_retry(self, exc_info: Any) -> None:
        """Acknowledge it: its task has sent itself again."""
        self._ending = "retried"
        super().on_retry(exc_info)

    def lost(self) -> None:
        """Note that RabbitMQ has it again, although it never began."""
        self._end("returned")

    def give_back(self) -> None:
        """Return the message to its queue, uncounted: it has not begun."""
        task_ready(self)
        self._undertaker.give_back(self._message)
        self._end("returned")

    def _end(self, outcome: str) -> None:
        if self._outcome is None:
            self._outcome = outcome
            began_s = self.time_start
            ran_s = None if began_s is None else max(0.0, time.time() - began_s)
            self._app.observer.ended(self._type, self._queue, outcome, ran_s=ran_s)
            log_ended(
                *(self._type, self.id, self._queue, outcome),
                attempt=attempt_of(self._request_dict),
                waited_s=self._waited_s,
                ran_s=ran_s,
            )

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """End what ran for too long; billiard tells `on_failure` of it, too."""
        if soft:
            super().on_timeout(soft, timeout)
        elif not self._over:
            try:
                raise TimeLimitExceeded(timeout)
            except TimeLimitExceeded:
                self.on_failure(ExceptionInfo())

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        """Return it to RabbitMQ, bury it, or answer it."""
        if self._over:
            return None
        exc = exc_info.exception
        if isinstance(exc, ExceptionWithTraceback):
            exc = exc.exc
        if isinstance(exc, (Terminated, Ignore, Retry)) or self._already_cancelled:
            return super().on_failure(exc_info, send_failed_event, return_ok)
        self._over = True
        task_ready(self)
        lost = isinstance(exc, _LOST)
        if lost and self._already_revoked:
            return None
        if self._is_call:
            self._ending = "answered"
        if lost and state.should_terminate is not None:
            # The worker itself has ended the process: that is no failure of the job's.
            self._end("returned")
            return self._undertaker.give_back(self._message)
        failure, again = _failure_of(exc, exc_info)
        if failure.reason is Reason.CANCELLED:
            return self._cancel(failure)
        if again and (lost or not self._is_call) and self._undertaker.has_attempts(self._message):
            if lost:
                logger.error("job %s (%s) goes back to RabbitMQ: %s", self.name, self.id, failure)
            return self._again()
        if self._is_call:
            # In the process that ran it the reply was sent already.
            if not return_ok:
                self._tell(exc, exc_info)
            return self.acknowledge()
        rule = self._undertaker.rule_of(self._message)
        reason = last_reason(failure.reason, rule.limit if rule else None)
        self._bury(Failure(reason, failure.error, failure.message, failure.traceback))
        return self._tell(exc, exc_info)

    def revoked(self) -> bool:
        """Say whether it must not begin: it is cancelled, or Celery's own revoke is about it."""
        if not self._over and not self.acknowledged:
            cancellation = self._app.cancelled.about(self._request_dict)
            if cancellation is not None:
                self._over = self._already_revoked = True
                task_ready(self)
                self._cancel(refusal(self._request_dict, cancellation))
                return True
        return bool(super().revoked())

    def _cancel(self, failure: Failure) -> None:
        """Answer a call, or make a job a dead letter, as cancelled."""
        self._ending = "revoked"
        try:
            with self.task.backend.without_waiting() as self._replies:
                self.task.backend.mark_as_revoked(
                    *(self.id, failure.message),
                    request=self._context,
                    store_result=self.store_errors,
                )
        # As for `_tell`.
        except Exception:
            logger.exception("nobody could be told that job %s (%s) is cancelled", *self._names)
        if self._is_call:
            self.acknowledge()
        else:
            self._bury(failure)

    @property
    def _names(self) -> tuple[str, str]:
        return self.name, self.id

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        if expired and not self._is_call:
            # Celery's own `expires`: where it would acknowledge, this buries.
            self._over = True
        self._ending = "answered" if self._is_call else "revoked"
        with self.task.backend.without_waiting() as self._replies:
            super()._announce_revoked(reason, terminated, signum, expired)

    def acknowledge(self) -> None:
        """Acknowledge the message; one that expired becomes a dead letter first."""
        if self._over and self.expires and not self._is_call and self._already_expired():
            text = f"job {self.name!r} ({self.id}) was not begun: it expired at {self.expires}"
            self._bury(Failure(Reason.DEADLINE, "", text))
            return
        # Those of a thread that has just run it are that thread's.
        replies = self._replies or self._app.replies.unconfirmed()
        if replies:
            self._replies = None
            self._undertaker.after(replies, self._message, self.acknowledge)
            return
        if not self.acknowledged and self._ending == "done":
            self._app.takeover.done(self._message, self.id, self._queue)
        super().acknowledge()
        self._end(self._ending)

    def take_over(self, message: Any, queue: str) -> bool:
        """Go on with a new delivery of the message, where RabbitMQ has taken back the last one.

        Args:
            message: kombu's.
            queue: that it came from.
        """
        if self._over or self.acknowledged or queue != self._queue:
            return False
        if not self._app.takeover.is_gone(self._message):
            return False
        self._message = message
        self._on_ack, self._on_reject = message.ack_log_error, message.reject_log_error
        return True

    def _again(self) -> None:
        """Have another attempt made: what RabbitMQ cannot delay the undertaker takes."""
        if not self._undertaker.try_again(self._message):
            self.reject(requeue=True)
            return
        self.acknowledged = True
        self.send_event("task-rejected", requeue=True)
        self._end("retried")

    def reject(self, requeue: bool = False) -> None:
        """Return the message to its queue as failed, or let RabbitMQ dead-letter it."""
        super().reject(requeue)
        self._end("retried" if requeue else "dead")

    def _already_expired(self) -> bool:
        return not self.acknowledged and self.time_start is None

    def _bury(self, failure: Failure) -> None:
        if not self.acknowledged:
            self.acknowledged = True
            self._undertaker.bury(self._message, failure)
            self._end("revoked" if failure.reason is Reason.CANCELLED else "dead")

    def _tell(self, exc: BaseException, exc_info: Any) -> None:
        """Tell whoever waits by Celery's means; what comes of it does not concern the message."""
        try:
            context = self._context
            if isinstance(exc, Reject) and isinstance(exc.reason, Failure):
                context.raised = exc.reason.reply
            with self.task.backend.without_waiting() as self._replies:
                self.task.backend.mark_as_failure(
                    self.id, exc, request=context, store_result=self.store_errors
                )
            signals.task_failure.send(
                sender=self.task,
                task_id=self.id,
                exception=exc,
                args=self.args,
                kwargs=self.kwargs,
                traceback=exc_info.traceback,
                einfo=exc_info,
            )
            self.send_event("task-failed", exception=repr(exc), traceback=exc_info.traceback)
        # A reply over a connection that is down, an errback or receiver of the user's.
        except Exception:
            logger.exception("nobody could be told that job %s (%s) failed", self.name, self.id)


def waited_s_of(app: Any, headers: Mapping[str, Any]) -> float | None:
    """Return how long a message has waited since it was published, or due; None: nobody knows."""
    published_ms = headers.get(PUBLISHED)
    if not isinstance(published_ms, int):
        return None
    since_s = published_ms / 1000
    if headers.get("eta") is not None:
        since_s = max(since_s, due_of(headers, app.timezone) or 0.0)
    # The publisher's clock may be ahead of this one.
    return max(0.0, time.time() - since_s)


def _failure_of(exc: BaseException, exc_info: Any) -> tuple[Failure, bool]:
    """Return what went wrong, and whether another attempt may mend it."""
    if isinstance(exc, Reject):
        if isinstance(exc.reason, Failure):
            return exc.reason, bool(exc.requeue)
        reason = Reason.FAILED if exc.requeue else Reason.GIVEN_UP
        return Failure(reason, "", str(exc.reason or "rejected by its task")), bool(exc.requeue)
    if isinstance(exc, TimeLimitExceeded):
        text = f"it ran for longer than its time limit of {exc.args[0]:g} s"
        return Failure(Reason.TIME_LIMIT, "celery.exceptions.TimeLimitExceeded", text), False
    if isinstance(exc, _LOST):
        return Failure.of(Reason.KILLED, exc, with_traceback=False), True
    # A result that no message or store can hold is the same next time.
    again = not isinstance(exc, EncodeError) or isinstance(exc, NotStored)
    reason = Reason.FAILED if again else Reason.GIVEN_UP
    failure = Failure.of(reason, exc, with_traceback=False)
    where = str(exc_info.traceback or "")
    return Failure(failure.reason, failure.error, failure.message, where), again
