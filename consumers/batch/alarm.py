"""Calls at a time, to a few milliseconds: Celery's event loop by itself sleeps for a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from math import inf


class Alarm:
    """A thread that calls when a time has come.

    Most times are dropped before they come, and the thread does not wake for that: it looks again
    when it would have woken anyway.

    Args:
        call: how a function is called, in whichever thread; must not wait.
    """

    def __init__(self, call: Callable[[Callable[[], None]], object]) -> None:
        self._call = call
        self._changed = threading.Condition()
        self._due: dict[Hashable, tuple[float, Callable[[], None]]] = {}
        self._wakes_at = inf
        self._started = self._closed = False

    def set(self, key: Hashable, delay_s: float, function: Callable[[], None]) -> None:
        """Call a function after so many seconds, instead of what was set for the same key."""
        when = time.monotonic() + delay_s
        with self._changed:
            self._due[key] = when, function
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="rabbitry-batches", daemon=True).start()
            elif when < self._wakes_at:
                self._changed.notify()

    def drop(self, key: Hashable) -> None:
        """Do not call what was set for a key."""
        with self._changed:
            self._due.pop(key, None)

    def close(self) -> None:
        """Call nothing any more."""
        with self._changed:
            self._closed = True
            self._due.clear()
            self._changed.notify()

    def _run(self) -> None:
        while (function := self._next()) is not None:
            self._call(function)

    def _next(self) -> Callable[[], None] | None:
        """Return what is due, when it is; None where it is over."""
        with self._changed:
            while not self._closed:
                key = min(self._due, key=lambda each: self._due[each][0], default=None)
                if key is None:
                    self._wakes_at = inf
                    self._changed.wait()
                    continue
                self._wakes_at, function = self._due[key]
                left_s = self._wakes_at - time.monotonic()
                if left_s <= 0:
                    del self._due[key]
                    return function
                self._changed.wait(left_s)
        return None
