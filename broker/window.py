"""How many messages are under way, who waits for room, and how receipts end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from broker.observer import Observer, name_of
from broker.receipt import ROUTED, Outcome, Receipt

# How far publishing runs ahead of the confirms, in messages; found by measurement, see
# docs/why/performance.md.
WINDOW = 2000
# Of large messages fewer: they are kept in memory until they are confirmed.
WINDOW_BYTES = 64 * 2**20

logger = logging.getLogger("rabbitry.publish")

# A thread that waits for room in the window is woken when half of it is free; rather than for
# each confirm: changing threads costs more than publishing. Where a few slow messages keep the
# window full, it looks by itself this often.
ROOM_LOOK_S = 0.01


class Window:
    """Bounds how many messages are under way, and how many bytes they are.

    Args:
        size: how many messages.
        size_bytes: how many bytes; the message that exceeds them is taken, the next is not.
        observer: counts how they end.

    Attributes:
        lock: held for every change of what is below, and of a receipt's outcome.
        changed: is notified when messages have ended.
        room: is notified when there is room, or when the window was closed.
        open: how many are under way.
        open_bytes: of their content.
        closed: whether no more are taken.
    """

    def __init__(self, size: int, size_bytes: int, observer: Observer | None) -> None:
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.room = threading.Condition(self.lock)
        self.open = 0
        self.open_bytes = 0
        self.closed = False
        self._size = size
        self._size_bytes = size_bytes
        self._observer = observer

    @property
    def full(self) -> bool:
        """Whether whoever publishes must wait, or may no longer."""
        return self.open >= self._size or self.open_bytes >= self._size_bytes or self.closed

    def take(self, receipt: Receipt) -> None:
        """Count a message as under way; holds the lock."""
        self.open += 1
        self.open_bytes += len(receipt.content or b"")

    def wait_for_room(self, deadline: float) -> bool:
        """Wait until the window has room; holds the lock. False where it stays full, or closes."""
        while self.full and not self.closed:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            self.room.wait_for(lambda: self._half_free or self.closed, min(left_s, ROOM_LOOK_S))
        return not self.closed

    def wait_until(self, holds: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait until something holds that ending messages changes; False after the time-out."""
        with self.changed:
            return self.changed.wait_for(holds, timeout_s)

    def close(self) -> None:
        """Take no more; who waits for room learns it."""
        with self.lock:
            self.closed = True
            self.room.notify_all()

    def end_routed(self, receipts: list[Receipt]) -> None:
        """End many at once: one lock and one waking for all."""
        called: list[Receipt] = []
        with self.lock:
            receipts = [receipt for receipt in receipts if receipt._outcome is None]
            size_bytes = 0
            for receipt in receipts:
                receipt._outcome = ROUTED
                size_bytes += len(receipt.content or b"")
                receipt.content = None  # the body may be large; nobody needs it any more
                if receipt._callbacks is not None:
                    called.append(receipt)
            self._fewer(len(receipts), size_bytes)
        if self._observer is not None and receipts:
            now = time.monotonic()
            self._observer.ended("routed", [now - receipt.started for receipt in receipts])
        for receipt in called:
            self._call_back(receipt)

    def end_each(self, outcomes: Sequence[tuple[Receipt, Outcome]]) -> None:
        """End messages in ways of their own; who has ended before stays as it is."""
        ended: list[tuple[Receipt, Outcome]] = []
        size_bytes = 0
        with self.lock:
            for receipt, outcome in outcomes:
                if receipt._outcome is None:
                    receipt._outcome = outcome
                    size_bytes += len(receipt.content or b"")
                    receipt.content = None
                    ended.append((receipt, outcome))
            self._fewer(len(ended), size_bytes)
        now = time.monotonic()
        for receipt, outcome in ended:
            if self._observer is not None:
                self._observer.ended(name_of(outcome), [now - receipt.started])
            self._call_back(receipt)

    def _fewer(self, count: int, size_bytes: int) -> None:
        self.open -= count
        self.open_bytes -= size_bytes
        self.changed.notify_all()
        if self._half_free:
            self.room.notify_all()

    @property
    def _half_free(self) -> bool:
        return self.open <= self._size // 2 and self.open_bytes <= self._size_bytes // 2

    @staticmethod
    def _call_back(receipt: Receipt) -> None:
        callbacks, receipt._callbacks = receipt._callbacks, None
        for callback in callbacks or ():
            try:
                callback(receipt)
            except Exception:
                logger.exception("a callback of message %s failed", receipt.message_id)
