"""The calls that wait for their replies, by id and by deadline."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable

from broker.errors import InvalidArguments
from producers.calls.call import Call

# A message that was never written ends at the same time and knows why; it is given this long.
GRACE_S = 0.02
# Of calls that have ended so many deadlines are kept, and one for each that is under way.
SPARE_DEADLINES = 1024


class CallsUnderWay:
    """Calls by id; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[str, Call] = {}
        self._deadlines: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._look_at = float("inf")

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: Call) -> bool:
        """Take a call in; says whether `take_late` must be asked at its end, and not only later.

        Raises:
            InvalidArguments: one of the same id is under way.
        """
        with self._lock:
            if call.id in self._calls:
                raise InvalidArguments(
                    f"a call with the id {call.id!r} is under way already", job=call.job
                )
            self._calls[call.id] = call
            if len(self._deadlines) > 2 * len(self._calls) + SPARE_DEADLINES:
                self._deadlines = [
                    (each.ends_at, next(self._order), each.id) for each in self._calls.values()
                ]
                heapq.heapify(self._deadlines)
            else:
                heapq.heappush(self._deadlines, (call.ends_at, next(self._order), call.id))
            sooner = call.ends_at < self._look_at
            if sooner:
                self._look_at = call.ends_at
            return sooner

    def get(self, id: str) -> Call | None:
        """Return the call of an id, or None."""
        return self._calls.get(id)

    def take(self, call: Call) -> bool:
        """Take a call out, and so become the one who ends it; False where somebody else has."""
        with self._lock:
            if self._calls.get(call.id) is not call:
                return False
            del self._calls[call.id]
            return True

    def take_late(self, now: float) -> tuple[list[Call], float]:
        """Take out what is past its deadline; returns it, and when to look again.

        Args:
            now: of `time.monotonic`; so is what is returned, infinity where nothing is under way.
        """
        late: list[Call] = []
        with self._lock:
            while self._deadlines and self._deadlines[0][0] <= now:
                ends_at, _, id = heapq.heappop(self._deadlines)
                call = self._calls.get(id)
                if call is None or call.ends_at != ends_at:
                    continue
                if not call.overdue and (call.receipt is None or not call.receipt.sent):
                    call.overdue, call.ends_at = True, now + GRACE_S
                    heapq.heappush(self._deadlines, (call.ends_at, next(self._order), id))
                    continue
                del self._calls[id]
                late.append(call)
            self._look_at = self._deadlines[0][0] if self._deadlines else float("inf")
            return late, self._look_at

    def take_all(self, which: Callable[[Call], bool] = lambda call: True) -> list[Call]:
        """Take out all that something holds of."""
        with self._lock:
            found = [call for call in self._calls.values() if which(call)]
            for call in found:
                del self._calls[call.id]
            return found
