"""How many messages are under way, who waits for room, and how receipts end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from broker.observer import Observer, name_of
from broker.receipt import ROUTED, Outcome, Receipt

logger = logging.getLogger("rabbitry.publish")

# A thread that waits for room in the window is woken when half of it is free; rather than for
# each confirm: changing threads costs more than publishing. Where a few slow messages keep the
# window full, it looks by itself this often.
ROOM_LOOK_S = 0.01


class Window:
    """Bounds how many messages are under way.

    Args:
        size: how many.
        observer: counts how they end.

    Attributes:
        lock: held for every change of what is below, and of a receipt's outcome.
        changed: is notified when messages have ended.
        room: is notified when there is room, or when the window was closed.
        open: how many are under way.
        closed: whether no more are taken.
    """

    def __init__(self, size: int, observer: Observer | None) -> None:
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.room = threading.Condition(self.lock)
        self.open = 0
        self.closed = False
        self._size = size
        self._observer = observer

    @property
    def full(self) -> bool:
        """Whether whoever publishes must wait, or may no longer."""
        return self.open >= self._size or self.closed

    def wait_for_room(self, deadline: float) -> bool:
        """Wait until the window has room; holds the lock. False where it stays full, or closes."""
        while self.open >= self._size and not self.closed:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            self.room.wait_for(
                lambda: self.open <= self._size // 2 or self.closed, min(left_s, ROOM_LOOK_S)
            )
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
            for receipt in receipts:
                receipt._outcome = ROUTED
                receipt.content = None  # the body may be large; nobody needs it any more
                if receipt._callbacks is not None:
                    called.append(receipt)
            self._fewer(len(receipts))
        if self._observer is not None and receipts:
            now = time.monotonic()
            self._observer.ended("routed", [now - receipt.started for receipt in receipts])
        for receipt in called:
            self._call_back(receipt)

    def end_each(self, outcomes: Sequence[tuple[Receipt, Outcome]]) -> None:
        """End messages in ways of their own; who has ended before stays as it is."""
        ended: list[tuple[Receipt, Outcome]] = []
        with self.lock:
            for receipt, outcome in outcomes:
                if receipt._outcome is None:
                    receipt._outcome = outcome
                    receipt.content = None
                    ended.append((receipt, outcome))
            self._fewer(len(ended))
        now = time.monotonic()
        for receipt, outcome in ended:
            if self._observer is not None:
                self._observer.ended(name_of(outcome), [now - receipt.started])
            self._call_back(receipt)

    def _fewer(self, count: int) -> None:
        self.open -= count
        self.changed.notify_all()
        if self.open <= self._size // 2:
            self.room.notify_all()

    @staticmethod
    def _call_back(receipt: Receipt) -> None:
        callbacks, receipt._callbacks = receipt._callbacks, None
        for callback in callbacks or ():
            try:
                callback(receipt)
            except Exception:
                logger.exception("a callback of message %s failed", receipt.message_id)
