"""The calls that a web process has under way or remembers, by their ids."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from broker.errors import RabbitryError
from rabbitry import Caller
from web.events import Stream
from web.history import History

# A call is remembered for so long after its end: for a page that was reloaded, or lost its stream.
KEEP_S = 300.0
# So many are under way or remembered; each holds a result.
MOST_CALLS = 200
# So many streams are open, each in a thread of its server.
MOST_STREAMS = 100
CALL_TIMEOUT_S = 60.0
# Whoever submits waits for RabbitMQ's confirm for so long.
CONFIRM_S = 2.0


class Busy(RabbitryError):
    """There are as many calls, or streams, as this process takes."""


class NotTaken(RabbitryError):
    """RabbitMQ did not confirm a job in time; it was given up."""


class NoSuchCall(RabbitryError):
    """This process knows of no call by that id: never, or no more."""


class Calls:
    """Submits calls and passes on what is heard of them, to any number of listeners.

    A listener that goes leaves its call alone, since a page may be reloaded: it ends by itself, by
    `cancel`, or by its time-out. Everything is bounded: the calls, the events kept of each, the
    streams, and how long a call is remembered.

    The calls are this process's. Where a site runs several, requests for a job must reach the one
    that submitted it (one process with many threads, or a balancer that sticks), or the job stores
    its result and the others read it there.

    Args:
        caller: makes the calls.
        timeout_s: seconds within which each ends.
        most, most_streams: how many calls and streams there are at a time.
        keep_s: seconds that an ended call is remembered.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        caller: Caller,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        most: int = MOST_CALLS,
        most_streams: int = MOST_STREAMS,
        keep_s: float = KEEP_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._caller = caller
        self._timeout_s = timeout_s
        self._most = most
        self._most_streams = most_streams
        self._keep_s = keep_s
        self._clock = clock
        self._lock = threading.Lock()
        self._histories: dict[str, History] = {}
        self._submitting = 0
        self._streams = 0

    def submit(self, job: str, *args: Any, **kwargs: Any) -> str:
        """Hand a job over to RabbitMQ; returns its id once RabbitMQ has confirmed it.

        Raises:
            Busy: there are too many.
            BrokerUnavailable: RabbitMQ is not there.
            PublishFailed: RabbitMQ did not take it.
            NotTaken: RabbitMQ did not say so in time.
            InvalidInput: nothing was sent.
        """
        with self._lock:
            self._make_room()
            self._submitting += 1
        try:
            # Where RabbitMQ is away, say so now and leave nothing that is sent later on.
            self._caller.connect(timeout_s=CONFIRM_S)
            call = self._caller.submit(job, *args, news=True, timeout_s=self._timeout_s, **kwargs)
            assert call.receipt is not None
            try:
                call.receipt.wait(timeout_s=CONFIRM_S)
            except TimeoutError:
                # Should it arrive after all, no worker begins it.
                call.cancel()
                raise NotTaken(
                    f"RabbitMQ did not confirm the job within {CONFIRM_S:g} s, and it was given up;"
                    " try again"
                ) from None
            history = History(call, clock=self._clock)
            with self._lock:
                self._histories[call.id] = history
        finally:
            with self._lock:
                self._submitting -= 1
        history.follow()
        return call.id

    def events(self, id: str, *, after: int = 0) -> Stream:
        """Return what is heard of a call, as it is heard; ends after its result or error.

        Progress that nobody took before there was more is left out.

        Args:
            id: of the call.
            after: the number of the last event that the listener has.

        Raises:
            NoSuchCall: this process knows of none.
            Busy: too many streams are open.
        """
        history = self._find(id)
        with self._lock:
            if self._streams >= self._most_streams:
                raise Busy(f"{self._streams} streams are open, and no more are taken; try again")
            self._streams += 1
        return Stream(history.listen(after), on_close=self._stopped_listening)

    def state(self, id: str) -> dict[str, Any]:
        """Return how a call is, without what has come of it.

        Raises:
            NoSuchCall: this process knows of none.
        """
        return {"id": id, **self._find(id).state()}

    def cancel(self, id: str) -> bool:
        """Give a call up; False where it has ended already.

        Raises:
            NoSuchCall: this process knows of none.
        """
        call = self._find(id).call
        return not call.done() and bool(call.cancel())

    def close(self) -> None:
        """Close the caller; what is under way ends with an error."""
        self._caller.close()

    def _stopped_listening(self) -> None:
        with self._lock:
            self._streams -= 1

    def _find(self, id: str) -> History:
        with self._lock:
            self._forget_old()
            history = self._histories.get(id)
        if history is None:
            raise NoSuchCall(f"this process has no job {id[:64]!r}; it was forgotten, or never was")
        return history

    def _make_room(self) -> None:
        self._forget_old()
        count = len(self._histories) + self._submitting
        if count < self._most:
            return
        ended = [
            (history.ended_at, id)
            for id, history in self._histories.items()
            if history.ended_at is not None
        ]
        if not ended:
            raise Busy(f"{count} jobs are under way, and no more are taken; try again")
        del self._histories[min(ended)[1]]

    def _forget_old(self) -> None:
        before = self._clock() - self._keep_s
        for id, history in list(self._histories.items()):
            if history.ended_at is not None and history.ended_at < before:
                del self._histories[id]
