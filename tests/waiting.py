"""Waiting for events, never for the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], timeout_s: float, what: str) -> T:
    """Ask again and again until the answer is true; return it.

    Raises:
        AssertionError: names what was waited for and the last answer.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout_s} s for {what}; last answer: {answer!r}")
        time.sleep(0.02)
