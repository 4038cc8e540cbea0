"""What a worker knows to be cancelled."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

from celery.worker import state

from broker.cancellation import Cancellation
from broker.case_file import Reason
from broker.message import PUBLISHED
from broker.topology.cancellations import KEPT_FOR
from consumers.cancel.table import Table
from consumers.failure.failure import Failure

# More than the stream holds; some 300 bytes each.
MOST = 50_000


class CancelledJobs:
    """The jobs whose cancellations were read, for as long as the stream itself keeps them.

    Safe to use from several threads. What the processes of the pool see of it is the table.

    Args:
        most: how many to remember.
        in_hand: says of an id whether its job is here, waiting or running.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        *,
        most: int = MOST,
        in_hand: Callable[[str], bool] = lambda id: id in state.requests,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.table = Table()
        self._most = most
        self._in_hand = in_hand
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Cancellation]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._known)

    def add(self, cancellation: Cancellation) -> None:
        """Remember a cancellation, and show it to the job where it is here."""
        now = self._clock()
        with self._lock:
            self._known[cancellation.id] = now, cancellation
            self._known.move_to_end(cancellation.id)
            oldest = now - KEPT_FOR.total_seconds()
            while len(self._known) > self._most or next(iter(self._known.values()))[0] < oldest:
                self._known.popitem(last=False)
        # A job is in hand first and looked up here next: one of both finds the other.
        if self._in_hand(cancellation.id):
            self.table.add(cancellation.id)

    def about(self, headers: Mapping[str, Any]) -> Cancellation | None:
        """Return what cancels a message, or None.

        Args:
            headers: of the message.
        """
        if not self._known:
            return None
        id = headers.get("id")
        if not isinstance(id, str):
            return None
        known = self._known.get(id)
        if known is None:
            return None
        _, cancellation = known
        if cancellation.holds_for(headers.get(PUBLISHED)):
            return cancellation
        # Published anew: whoever did so wants it to run.
        with self._lock:
            self._known.pop(id, None)
        self.table.discard(id)
        return None

    def show(self, headers: Mapping[str, Any]) -> None:
        """Show a message's cancellation, if any, to the process that runs its job."""
        cancellation = self.about(headers)
        if cancellation is not None:
            self.table.add(cancellation.id)

    def holds(self, id: str) -> bool:
        """Say whether a job that runs is cancelled; in any process of the worker."""
        return id in self.table


def refusal(headers: Mapping[str, Any], cancellation: Cancellation) -> Failure:
    """Return why a message is not begun.

    Args:
        headers: of the message.
        cancellation: what cancels it.
    """
    by = f" by {cancellation.by}" if cancellation.by else ""
    return Failure(
        Reason.CANCELLED,
        message=f"job {headers.get('task')!r} ({headers.get('id')}) was not begun: it was"
        f" cancelled{by}",
    )
