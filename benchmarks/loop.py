"""The event loop of the peers of asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(asking: Coroutine[Any, Any, T]) -> T:
    """Run on the loop that taskiq and FastStream take where it is, else on asyncio's."""
    with asyncio.Runner(loop_factory=_factory()) as runner:
        return runner.run(asking)


def _factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
