"""One call for each of any number of items, in bounded memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any

from producers.calls.call import Call

# Calls under way, or ended and not yet asked for; bounds the memory.
AHEAD = 1000

Submit = Callable[[Any], Call]
SubmitLater = Callable[[Any], Awaitable[Call]]


def in_order(submit: Submit, items: Iterable[Any]) -> Iterator[Any]:
    """Yield the results in the order of the items.

    Args:
        submit: makes the call of an item.
        items: taken as far as calls may run ahead.
    """
    pending: deque[Call] = deque()
    try:
        for item in items:
            pending.append(submit(item))
            while pending and (pending[0].done() or len(pending) >= AHEAD):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        _cancel(pending)


def as_completed(submit: Submit, items: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """Yield an item's number, from 0, and its result, whichever comes first; see `in_order`."""
    under_way: dict[int, Call] = {}
    ended: SimpleQueue[int] = SimpleQueue()

    def next_one() -> tuple[int, Any]:
        number = ended.get()
        return number, under_way.pop(number).result()

    try:
        for number, item in enumerate(items):
            call = under_way[number] = submit(item)
            call.add_done_callback(partial(_note, ended.put, number))
            while not ended.empty() or len(under_way) >= AHEAD:
                yield next_one()
        while under_way:
            yield next_one()
    finally:
        _cancel(under_way.values())


async def in_order_later(submit: SubmitLater, items: Iterable[Any]) -> AsyncIterator[Any]:
    """Do as `in_order`, for coroutines."""
    pending: deque[Call] = deque()
    try:
        for item in items:
            pending.append(await submit(item))
            while pending and (pending[0].done() or len(pending) >= AHEAD):
                yield await pending.popleft()
        while pending:
            yield await pending.popleft()
    finally:
        _cancel(pending)


async def as_completed_later(
    submit: SubmitLater, items: Iterable[Any]
) -> AsyncIterator[tuple[int, Any]]:
    """Do as `as_completed`, for coroutines."""
    under_way: dict[int, Call] = {}
    ended: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def put(number: int) -> None:
        with suppress(RuntimeError):  # the event loop is closed: nobody waits any more
            loop.call_soon_threadsafe(ended.put_nowait, number)

    async def next_one() -> tuple[int, Any]:
        number = await ended.get()
        return number, under_way.pop(number).result()

    try:
        for number, item in enumerate(items):
            call = under_way[number] = await submit(item)
            call.add_done_callback(partial(_note, put, number))
            while not ended.empty() or len(under_way) >= AHEAD:
                yield await next_one()
        while under_way:
            yield await next_one()
    finally:
        _cancel(under_way.values())


def _note(put: Callable[[int], Any], number: int, call: Call) -> None:
    # Cancelled ones are those of an iterator that was left.
    if not call.cancelled():
        put(number)


def _cancel(calls: Iterable[Call]) -> None:
    for call in tuple(calls):
        call.cancel()
