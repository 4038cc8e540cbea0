"""The event loop of the peers of asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(asking: Coroutine[Any, Any, T]) -> T:
    """Run to the end, on a loop of its own."""
    with asyncio.Runner(loop_factory=new) as runner:
        return runner.run(asking)


def new() -> asyncio.AbstractEventLoop:
    """Make the loop that taskiq and FastStream take where it is, else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
