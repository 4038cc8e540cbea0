"""News of a call under way: that it has begun, and how far it is; as seldom as people look."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from broker.receipt import Receipt
from broker.reply import ACCEPTED, PROGRESS

# At most twenty a second of each call.
INTERVAL_S = 0.05


@dataclass(frozen=True, slots=True)
class Sending:
    """How the news of one call are sent.

    Attributes:
        tell: sends a status and what belongs to it.
        call_at: calls at a time of `time.monotonic`, from another thread.
    """

    tell: Callable[[str, Any], Receipt]
    call_at: Callable[[float, Callable[[], None]], None]


class News:
    """Tells the caller of one call.

    A call's progress is sent at once where the last was sent long enough ago; else it waits for
    its time, and a later one takes its place. So the last is always sent, before the result.
    Partial results are never left out.

    Args:
        sending: how.
        interval_s: between two of them.
        clock: seconds, as of `time.monotonic`.
    """

    def __init__(
        self,
        sending: Sending,
        *,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sending = sending
        self._interval_s = interval_s
        self._clock = clock
        # Threads that the task has begun may tell, too.
        self._lock = threading.Lock()
        self._next_at = 0.0
        self._waiting: dict[str, Any] | None = None
        self._last: Receipt | None = None
        self._is_set = self._over = False

    def accepted(self) -> None:
        """Tell that the task begins."""
        self._sending.tell(ACCEPTED, None)

    def progress(self, value: dict[str, Any]) -> None:
        """Tell how far the call is.

        Args:
            value: the keys ``fraction``, ``text`` and ``partial``.

        Raises:
            InvalidMessage: the partial result cannot be put into a message.
        """
        with self._lock:
            if self._over:
                return
            if value["partial"] is not None:
                # What waits was said before it.
                self._send_waiting()
                self._send(value)
                return
            self._waiting = value
            now = self._clock()
            if now >= self._next_at and self._is_free:
                self._send_waiting()
            elif not self._is_set:
                self._is_set = True
                self._sending.call_at(max(self._next_at, now + self._interval_s), self._due)

    def close(self) -> None:
        """Tell what waits, and nothing after it."""
        with self._lock:
            self._over = True
            self._send_waiting()

    @property
    def _is_free(self) -> bool:
        # While RabbitMQ takes nothing, news get old.
        return self._last is None or self._last.done

    def _due(self) -> None:
        with self._lock:
            self._is_set = False
            if self._over or self._waiting is None:
                return
            if self._is_free:
                self._send_waiting()
            else:
                self._is_set = True
                self._sending.call_at(self._clock() + self._interval_s, self._due)

    def _send_waiting(self) -> None:
        value, self._waiting = self._waiting, None
        if value is not None:
            self._send(value)

    def _send(self, value: dict[str, Any]) -> None:
        self._next_at = self._clock() + self._interval_s
        self._last = self._sending.tell(PROGRESS, value)
