"""What a worker says on the way to the result, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from broker.reply import News
from producers.calls.call import Call

# Of news that nobody has asked for yet so many are kept; the oldest go first.
MOST_NEWS = 1000

OnNews = Callable[[News], None]


def stream(submit: Callable[[OnNews], Call]) -> Iterator[Any]:
    """Make a call, and return an iterator of its news that ends with its result.

    Args:
        submit: makes the call, whose news go to the function that it is given.
    """
    told: SimpleQueue[News | None] = SimpleQueue()

    def tell(news: News) -> None:
        if told.qsize() >= MOST_NEWS:
            with suppress(Empty):
                told.get_nowait()
        told.put(news)

    call = submit(tell)
    call.add_done_callback(lambda _: told.put(None))
    return _news(call, told)


def _news(call: Call, told: SimpleQueue[News | None]) -> Iterator[Any]:
    try:
        while (news := told.get()) is not None:
            yield news
        yield call.result()
    finally:
        call.cancel()


async def stream_later(submit: Callable[[OnNews], Awaitable[Call]]) -> AsyncIterator[Any]:
    """Do as `stream`, for coroutines; the call is made when the first of it is awaited."""
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[News | None] = asyncio.Queue()

    def put(news: News | None) -> None:
        if told.qsize() >= MOST_NEWS:
            told.get_nowait()
        told.put_nowait(news)

    call = await submit(lambda news: _soon(loop, put, news))
    try:
        call.add_done_callback(lambda _: _soon(loop, put, None))
        while (news := await told.get()) is not None:
            yield news
        yield await call
    finally:
        call.cancel()


def _soon(loop: asyncio.AbstractEventLoop, put: Callable[[Any], None], news: Any) -> None:
    with suppress(RuntimeError):  # the event loop is closed: nobody waits any more
        loop.call_soon_threadsafe(put, news)
