"""What has been heard of one call, for any number of listeners."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any

from broker.errors import RabbitryError
from web.events import Event

# Where nothing happens, a listener is given something to write this often.
HEARTBEAT_S = 5.0


class History:
    """The last event of each kind, in the order they came: few, however much a job tells.

    Args:
        clock: monotonic seconds.

    Attributes:
        call: whose it is.
        ended_at: when it ended, by that clock, or None.
    """

    def __init__(self, call: Any, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.call = call
        self.ended_at: float | None = None
        self._clock = clock
        self._events: dict[str, Event] = {}
        self._heard = 0
        self._changed = threading.Condition()

    def follow(self) -> None:
        """Hear what the call tells from now on, and its end."""
        self.call.on_accepted(lambda news: self._hear("accepted", {"worker": news.worker}))
        self.call.on_progress(self._progress)
        self.call.add_done_callback(self._ended)

    def listen(self, after: int) -> Iterator[Event | None]:
        """Yield events as they come, up to the last; None where there is none for a while.

        Args:
            after: the number of the last one that the listener has.
        """
        while True:
            with self._changed:
                if self._heard <= after and self.ended_at is None:
                    self._changed.wait(HEARTBEAT_S)
                new = [each for each in self._events.values() if each.number > after]
                ended = self.ended_at is not None
            if not new and not ended:
                yield None
            for event in sorted(new, key=lambda each: each.number):
                yield event
                after = event.number
            if ended:
                return

    def state(self) -> dict[str, Any]:
        """Return how the call is, without what has come of it."""
        with self._changed:
            kinds = self._events.keys()
            progress = self._events.get("progress")
            ended = self.ended_at is not None
        if ended:
            state = "failed" if "error" in kinds else "done"
        else:
            state = "running" if kinds else "waiting"
        return {"state": state, "fraction": None if progress is None else progress.data["fraction"]}

    # -- in the connection's thread, so quick ---------------------------------------------

    def _progress(self, news: Any) -> None:
        if news.partial is not None:
            self._hear("partial", _named(news.partial))
        self._hear("progress", {"fraction": news.fraction, "text": news.text})

    def _ended(self, call: Any) -> None:
        try:
            result = call.result()
        except CancelledError:
            self._hear("error", {"error": "Cancelled", "message": "the job was given up"})
        except RabbitryError as exc:
            self._hear("error", {"error": type(exc).__name__, "message": str(exc)})
        else:
            timing = call.timing
            seconds = {"waited_s": timing.waited_s, "ran_s": timing.ran_s} if timing else {}
            self._hear("result", {**_named(result), **seconds})

    def _hear(self, kind: str, data: dict[str, Any]) -> None:
        with self._changed:
            if self.ended_at is not None or (kind == "accepted" and kind in self._events):
                return
            self._heard += 1
            event = self._events[kind] = Event(self._heard, kind, data)
            if event.last:
                self.ended_at = self._clock()
            self._changed.notify_all()


def _named(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"value": value}
