"""Jobs to try things out with: demo.echo, demo.add, demo.sleep, demo.fail, demo.heartbeat."""

from __future__ import annotations

import math
import os
import socket
import time
from datetime import UTC, datetime
from typing import Any

from consumers.job import job

# time.sleep overflows beyond; nobody waits as long.
LONGEST_SLEEP_S = 86_400.0


class DemoFailure(RuntimeError):
    """What demo.fail raises: an error of the job's own, and no more."""


@job("demo.echo")
def echo(value: Any = None) -> Any:
    """Return the argument: any value, arrays within included."""
    return value


@job("demo.add")
def add(a: int | float, b: int | float) -> int | float:
    """Return a + b."""
    return a + b


@job("demo.sleep")
def sleep(seconds: float) -> float:
    """Keep a worker's slot busy.

    Args:
        seconds: from 0 to 86,400.

    Returns:
        The seconds that went by.

    Raises:
        ValueError: the seconds are out of range.
    """
    if not (math.isfinite(seconds) and 0 <= seconds <= LONGEST_SLEEP_S):
        raise ValueError(f"seconds must be from 0 to {LONGEST_SLEEP_S:g}, not {seconds:g}")
    started = time.monotonic()
    time.sleep(seconds)
    return time.monotonic() - started


@job("demo.fail")
def fail(message: str = "demo.fail was asked to fail") -> None:
    """Raise `DemoFailure` with this message, always."""
    raise DemoFailure(message)


@job("demo.heartbeat")
def heartbeat() -> dict[str, Any]:
    """Say that a worker is alive: the time (ISO 8601, UTC), its process id and its host."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "pid": os.getpid(),
        "host": socket.gethostname(),
    }
