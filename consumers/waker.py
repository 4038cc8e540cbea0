"""Wakes Celery's event loop from another thread: by itself it looks once in a second or more."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any


class Waker:
    """Calls of other threads, for the thread of an event loop."""

    def __init__(self) -> None:
        self._calls: deque[Callable[[], Any]] = deque()
        self._thread = 0
        self._woken = False
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)

    def register(self, hub: Any) -> None:
        """Watch for calls on an event loop, which forgets that when a connection is lost."""
        self._thread = threading.get_ident()
        hub.add_reader(self._read, self._run)
        self.wake()

    @property
    def in_loop(self) -> bool:
        """Whether this is the loop's own thread, which needs no waking."""
        return threading.get_ident() == self._thread

    def soon(self, call: Callable[[], Any]) -> None:
        """Call in the loop's next turn; safe from any thread, and in a signal handler."""
        self._calls.append(call)
        # Behind the call: who finds it woken knows that it has not looked yet.
        if not self._woken:
            self._woken = True
            self.wake()

    def wake(self) -> None:
        """Let the loop's next turn begin at once; safe from any thread, and in a signal handler."""
        # Where it is full the loop has been woken.
        with contextlib.suppress(BlockingIOError):
            self._write.send(b"\0")

    def _run(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._read.recv(4096)
        # Before it looks: who comes now wakes it again.
        self._woken = False
        try:
            while self._calls:
                self._calls.popleft()()
        finally:
            # One that failed must not keep the others.
            if self._calls:
                self.wake()
