"""A process that runs jobs: takes them from the inbox, and tells of two things in one write."""

from __future__ import annotations

import os
import pickle
from struct import Struct
from typing import Any

from billiard.pool import EX_FAILURE, READY
from billiard.reduction import ForkingPickler
from celery.concurrency import asynpool

from consumers.pool.inbox import Inbox, InboxEnd

_size = Struct(">i").pack
_long_size = Struct(">iQ").pack
_LONG = 2**31 - 1


class Outbox:
    """billiard's queue of results; the result of a job waits for the word that the next has begun.

    It waits only while there is a next job at hand: whoever would wait for one flushes first.

    Args:
        queue: billiard's.
    """

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._writer = queue._writer
        self._reader = queue._reader
        self._held = b""

    def put(self, message: Any) -> None:
        """Write a message, or hold it where it is a result.

        Raises:
            Exception: it cannot be pickled.
        """
        frame = self._held + _frame(message)
        if message[0] == READY:
            self._held = frame
            return
        self._held = b""
        self._write(frame)

    def flush(self) -> None:
        """Write what is held."""
        if self._held:
            frame, self._held = self._held, b""
            self._write(frame)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
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
        super().__init__(*args, **options)

    def after_fork(self) -> None:
        """Set up the process that was forked."""
        self._inbox.close_put()
        super().after_fork()

    def on_loop_start(self, pid: int) -> None:
        """Tell that the process is up; what it tells from now on is joined."""
        super().on_loop_start(pid)
        self.outq = Outbox(self.outq)

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
            self.outq.flush()
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
