"""The calls of this process."""

from __future__ import annotations

from functools import cache

from web.calls import Calls
from web.services import make_caller


@cache
def calls() -> Calls:
    """Return the calls of this process; its caller is made with the first request.

    Not before: a server that forks its processes would have made one for all of them.
    """
    return Calls(make_caller())


def close() -> None:
    """End the calls of this process, where there ever was one."""
    if calls.cache_info().currsize:
        calls().close()
        calls.cache_clear()
