"""A process that runs jobs: takes them from the inbox, and tells what became of each.

Of a call it tells only when RabbitMQ has its reply: whoever is told acknowledges it, and a reply
that was no more than written would be lost with this process. Other jobs run meanwhile.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, Protocol

from billiard.pool import ACK, EX_FAILURE, READY
from billiard.reduction import ForkingPickler
from celery import current_app
from celery.concurrency import asynpool

from broker.receipt import Receipt
from consumers.pool.begun import Begun
from consumers.pool.inbox import Inbox, InboxEnd

_size = Struct(">i").pack
_long_size = Struct(">iQ").pack
_LONG = 2**31 - 1


class Replies(Protocol):
    """Who sends the replies of this process."""

    def unconfirmed(self) -> Sequence[Receipt]:
        """Take the replies of the job that has just ended here."""

    def soon(self, work: Callable[[], None]) -> None:
        """Call from the thread that learns of confirms, after those that it has now."""


class Outbox:
    """billiard's queue of results, which tells of several things in one write.

    That a job has begun is noted, and told with the result of the one before or with its own. A
    result waits while there is a next job at hand, until that begins: whoever would wait for one
    flushes first. The result of a call waits for its reply.

    Args:
        queue: billiard's.
        begun: where to note what begins.
        replies: of this process, if it sends any.
    """

    def __init__(self, queue: Any, begun: Begun, replies: Replies | None = None) -> None:
        self._queue = queue
        self._begun = begun
        self._word: Any = None
        self._writer = queue._writer
        self._reader = queue._reader
        self._replies = replies
        self._held = b""
        # Results whose replies are on their way.
        self._waiting = 0
        # The thread that learns of confirms tells, too.
        self._lock = threading.Lock()
        self._told = threading.Condition(self._lock)

    def put(self, message: Any) -> None:
        """Write a message, or hold it where it is that a job begins, or its result.

        Raises:
            Exception: it cannot be pickled.
        """
        if message[0] == ACK:
            number, _, at, *_ = message[1]
            self._begun.note(number, at)
            if self._held:
                with self._lock:
                    self._write(_frame(message))
            else:
                self._word = message
            return
        frame = _frame(message)
        if message[0] != READY:
            with self._lock:
                self._write(frame)
            return
        if self._word is not None:
            frame, self._word = _frame(self._word) + frame, None
        replies = self._replies.unconfirmed() if self._replies is not None else ()
        if replies:
            self._put_after(replies, frame)
            return
        with self._lock:
            self._held += frame

    def flush(self) -> None:
        """Write what is held and waits for nothing."""
        with self._lock:
            if self._held:
                self._write()

    def finish(self) -> None:
        """Write all, when it is known what became of each reply; their deadlines end the wait."""
        with self._lock:
            self._told.wait_for(lambda: not self._waiting)
            self._write()

    def _put_after(self, replies: Sequence[Receipt], frame: bytes) -> None:
        sender, left = self._replies, len(replies)
        assert sender is not None

        def confirmed(_receipt: Receipt) -> None:
            nonlocal left
            with self._lock:
                left -= 1
                if left:
                    return
                self._waiting -= 1
                self._held += frame
                self._told.notify_all()
            sender.soon(self.flush)

        with self._lock:
            self._waiting += 1
        for receipt in replies:
            receipt.add_done_callback(confirmed)

    def _write(self, frame: bytes = b"") -> None:
        view, self._held = memoryview(self._held + frame), b""
        while view:
            view = view[os.write(self._writer.fileno(), view) :]


class JobChild(asynpool.Worker):  # type: ignore[misc]
    """A process of the pool.

    Args:
        inbox: of all of them.
    """

    outq: Any

    def __init__(self, inbox: Inbox, *args: Any, **options: Any) -> None:
        self._inbox = inbox
        self._begun = Begun()
        super().__init__(*args, **options)

    def contribute_to_object(self, obj: Any) -> Any:
        """Give the worker's process what it knows this one by."""
        obj.begun = self._begun
        return super().contribute_to_object(obj)

    def after_fork(self) -> None:
        """Set up the process that was forked."""
        self._inbox.close_put()
        super().after_fork()

    def on_loop_start(self, pid: int) -> None:
        """Tell that the process is up; what it tells from now on is joined."""
        super().on_loop_start(pid)
        self.outq = Outbox(self.outq, self._begun, getattr(current_app, "replies", None))

    def _make_child_methods(self, loads: Any = pickle.loads) -> None:
        self.wait_for_job = self._next
        self.wait_for_syn = None

    def _next(self) -> Any:
        try:
            taken = self._inbox.take(wait=False)
            if taken is None:
                self.outq.flush()
                taken = self._inbox.take(wait=True)
        except InboxEnd:
            raise SystemExit(EX_FAILURE) from None
        return None if taken is None else pickle.loads(taken.payload, buffers=taken.buffers)

    def _ensure_messages_consumed(self, completed: int) -> Any:
        if isinstance(self.outq, Outbox):
            self.outq.finish()
        return super()._ensure_messages_consumed(completed)


def _frame(message: Any) -> bytes:
    try:
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    # Pickling runs the code of whoever made the object.
    except Exception:  # noqa: BLE001
        data = bytes(ForkingPickler.dumps(message))
    if len(data) > _LONG:
        return _long_size(-1, len(data)) + data
    return _size(len(data)) + data
