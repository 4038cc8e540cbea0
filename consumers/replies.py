"""Replies: a result backend that publishes straight to the caller's `reply_to`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.backends.rpc import RPCBackend
from kombu.exceptions import EncodeError

from broker.case_file import bounded
from broker.errors import InvalidMessage, MessageTooLarge
from broker.message import CALL, DEADLINE, NEWS
from broker.receipt import Receipt
from broker.reply import FINAL, TRACEBACK_BYTES, error_of, reply_body, reply_frames
from consumers.job import published_ms_of
from consumers.replies_news import News, Sending
from consumers.replies_sender import ReplySender, too_large

# How long a reply may be on its way: to a call without a deadline, at most, and at least; clocks
# differ, and the caller's own decides when it has waited enough.
PATIENCE_S = 20.0
MOST_S, LEAST_S = 60.0, 1.0


class ResultTooLarge(EncodeError):  # type: ignore[misc]
    """The result of a call is larger than RabbitMQ takes."""


class ReplyBackend(RPCBackend):  # type: ignore[misc]
    """Celery's ``rpc://`` with arrays in the result and times in the headers.

    A Celery client with ``rpc://`` understands its replies; nothing is declared, and a request
    without `reply_to` gets none.
    """

    _unwaited = threading.local()

    def store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Send the reply to a request that waits for one; return when it is on its way.

        Without a connection it returns when RabbitMQ has the reply, or its time is over. News go to
        callers that want them.

        Raises:
            kombu.exceptions.EncodeError: the result cannot travel; Celery then replies with that.
        """
        reply_to, correlation_id = self.destination_for(task_id, request)
        is_final = state in FINAL
        if not reply_to or not (is_final or wants_news(request)):
            return result
        try:
            receipt = self._send(
                task_id, reply_to, correlation_id, result, state, traceback, request
            )
        except InvalidMessage as exc:
            raise EncodeError(f"the result cannot be put into a reply: {exc}") from exc
        if not is_final:
            return result
        unwaited = getattr(self._unwaited, "receipts", None)
        if unwaited is not None:
            unwaited.append(receipt)
            return result
        self._sender.settle(receipt)
        larger = too_large(receipt)
        if larger is not None:
            raise _too_large(larger)
        return result

    @contextmanager
    def without_waiting(self) -> Iterator[list[Receipt]]:
        """Let replies of this thread be sent without waiting; gives their receipts."""
        receipts: list[Receipt] = []
        self._unwaited.receipts = receipts
        try:
            yield receipts
        finally:
            self._unwaited.receipts = None

    def news_of(self, request: Any) -> News | None:
        """Return what tells the caller of a request how far it is; None where nobody wants it."""
        if not (request.get(NEWS) and request.reply_to):
            return None
        task_id, reply_to = request.id, request.reply_to
        correlation_id = request.correlation_id or task_id

        def tell(state: str, value: Any) -> Receipt:
            return self._send(task_id, reply_to, correlation_id, value, state, None, request)

        return News(Sending(tell, self._sender.call_at))

    def ensure_chords_allowed(self) -> None:
        """Refuse a chord of Celery's.

        Raises:
            NotImplementedError: always, as Celery's own backend.
        """
        raise NotImplementedError(
            "a chord keeps what its parts return: add `results: {backend: redis://HOST:6379/0}` to"
            " the topology"
        )

    @property
    def _sender(self) -> ReplySender:
        # Of the application: Celery makes a backend for each thread.
        sender: ReplySender = self.app.replies
        return sender

    def _send(
        self,
        task_id: str,
        reply_to: str,
        correlation_id: str,
        result: Any,
        state: str,
        traceback: str | None,
        request: Any,
    ) -> Receipt:
        if state in self.EXCEPTION_STATES and isinstance(result, BaseException):
            result, traceback = self._error(result, traceback, request)
        children = getattr(request, "children", None)
        body = reply_body(
            task_id,
            state,
            result,
            traceback=traceback,
            children=[each.as_tuple() for each in children] if children else (),
            **_canvas(request),
        )
        content = reply_frames(
            body,
            reply_to=reply_to,
            correlation_id=correlation_id,
            published_ms=published_ms_of(request),
            started_ms=getattr(request, "started_ms", None),
            finished_ms=round(time.time() * 1000) if state in FINAL else None,
            worker=getattr(request, "hostname", None),
        )
        try:
            return self._sender.send(
                content, id=correlation_id, reply_to=reply_to, timeout_s=_timeout_s(request)
            )
        except MessageTooLarge as exc:
            raise _too_large(exc) from exc

    def _error(
        self, exc: BaseException, traceback: str | None, request: Any
    ) -> tuple[Any, str | None]:
        """Return an error and its traceback as they stand in a reply."""
        raised: tuple[Any, str | None] | None = getattr(request, "raised", None)
        # A result that cannot be sent comes after it.
        if raised is not None and not isinstance(exc, EncodeError):
            return raised
        return error_of(exc), None if traceback is None else bounded(traceback, TRACEBACK_BYTES)


def wants_news(request: Any) -> bool:
    """Say whether who waits for a request's reply is told of it before: ours say if they want."""
    return bool(request.get(NEWS)) or not request.get(CALL)


def _timeout_s(request: Any) -> float:
    deadline_ms = request.get(DEADLINE)
    if not isinstance(deadline_ms, (int, float)):
        return PATIENCE_S
    return min(MOST_S, max(LEAST_S, deadline_ms / 1000 - time.time()))


def _canvas(request: Any) -> dict[str, Any]:
    """Return what Celery's canvas has in a result message."""
    found = {"group_id": request.get("group"), "parent_id": request.get("parent_id")}
    return {key: value for key, value in found.items() if value}


def _too_large(exc: MessageTooLarge) -> ResultTooLarge:
    return ResultTooLarge(
        f"the result has {exc.size_bytes} bytes with all that belongs to it, and RabbitMQ takes"
        f" messages of at most {exc.limit_bytes} (max_message_size in rabbitmq.conf); return less,"
        " or a reference to the data"
    )
