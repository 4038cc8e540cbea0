"""Waiting for events, never for the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Most questions are to RabbitMQ, by a connection of their own that costs both sides 6 ms: what
# takes long is asked for less often.
_FIRST_S, _LAST_S, _LONGER = 0.02, 0.08, 1.2


def until(condition: Callable[[], T], timeout_s: float, what: str) -> T:
    """Ask again and again until the answer is true; return it.

    Raises:
        AssertionError: names what was waited for and the last answer.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_S
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout_s} s for {what}; last answer: {answer!r}")
        time.sleep(pause_s)
        pause_s = min(pause_s * _LONGER, _LAST_S)
