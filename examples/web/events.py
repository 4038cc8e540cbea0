"""What a visitor hears of a job, as server-sent events (WHATWG HTML, "Server-sent events")."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

STREAM_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    # nginx would gather what it passes on, and keep events back.
    "X-Accel-Buffering": "no",
}
# Sent first: a browser that loses the stream asks for the rest after so long.
RETRY = b"retry: 1000\n\n"
# Sent where nothing happens: only by writing does a server notice that nobody listens.
HEARTBEAT = b": still there\n\n"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened to a job.

    Attributes:
        number: 1 for the first; a browser names the last that it has when it comes back.
        kind: ``accepted``, ``progress``, ``partial``, ``result`` or ``error``.
        data: of it.
    """

    number: int
    kind: str
    data: dict[str, Any]

    @property
    def last(self) -> bool:
        """Whether nothing comes after it."""
        return self.kind in ("result", "error")

    def encode(self) -> bytes:
        """Return it as it goes over the line."""
        data = json.dumps(plain(self.data), allow_nan=False)
        return f"id: {self.number}\nevent: {self.kind}\ndata: {data}\n\n".encode()


class Stream:
    """The body of a response: events as bytes, each as it happens.

    Args:
        events: None where nothing has happened for a while.
        on_close: called once when nobody listens any more; also where nobody ever did.
    """

    def __init__(self, events: Iterator[Event | None], *, on_close: Callable[[], None]) -> None:
        self._events = events
        self._on_close: Callable[[], None] | None = on_close
        self._begun = False

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> bytes:
        if not self._begun:
            self._begun = True
            return RETRY
        try:
            event = next(self._events)
        except StopIteration:
            self.close()
            raise
        return HEARTBEAT if event is None else event.encode()

    def close(self) -> None:
        """Say that nobody listens any more; servers call this whatever becomes of the response."""
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()


def plain(value: Any) -> Any:
    """Return a value as JSON has it: arrays as lists, null where a number is none."""
    if isinstance(value, np.ndarray):
        return [plain(each) for each in value.tolist()]
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
