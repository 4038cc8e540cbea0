"""Calls at a time, to a few milliseconds: Celery's event loop by itself sleeps for a second."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable


class Alarm:
    """A thread that calls when a time has come.

    Args:
        call: how a function is called, in whichever thread; must not wait.
    """

    def __init__(self, call: Callable[[Callable[[], None]], object]) -> None:
        self._call = call
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._started = self._closed = False

    def set(self, delay_s: float, function: Callable[[], None]) -> None:
        """Call a function after so many seconds."""
        when = time.monotonic() + delay_s
        with self._changed:
            first = not self._due or when < self._due[0][0]
            heapq.heappush(self._due, (when, next(self._count), function))
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="rabbitry-batches", daemon=True).start()
            elif first:
                self._changed.notify()

    def close(self) -> None:
        """Call nothing any more."""
        with self._changed:
            self._closed = True
            self._due.clear()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (left_s := self._left_s()) != 0:
                    self._changed.wait(left_s)
                if self._closed:
                    return
                _, _, function = heapq.heappop(self._due)
            self._call(function)

    def _left_s(self) -> float | None:
        """Return the seconds until the first is due; None where there is none."""
        return max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
