"""Calls that other threads leave for an event loop: each is made, however they meet."""

from __future__ import annotations

import select
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from consumers.waker import Waker

THREADS, CALLS = 4, 3_000


class Loop:
    """As much of kombu's hub as wakers use."""

    def __init__(self) -> None:
        self._reader: tuple[Any, Callable[[], None]] | None = None

    def add_reader(self, file: Any, callback: Callable[[], None]) -> None:
        self._reader = file, callback

    def turn(self) -> bool:
        """Wait to be woken; False where nobody does."""
        assert self._reader is not None
        file, callback = self._reader
        if not select.select([file], [], [], 10)[0]:
            return False
        callback()
        return True


@pytest.fixture
def waker() -> Iterator[Waker]:
    made = Waker()
    yield made
    made._read.close()
    made._write.close()


class Interrupted(deque[Callable[[], Any]]):
    """Calls of a thread that another one overtakes as soon as it has left its own."""

    def __init__(self, other: Callable[[], None]) -> None:
        super().__init__()
        self._other: Callable[[], None] | None = other

    def append(self, call: Callable[[], Any]) -> None:
        super().append(call)
        other, self._other = self._other, None
        if other is not None:
            other()


def test_no_call_is_left_where_two_threads_meet(waker: Waker) -> None:
    loop, made = Loop(), list[str]()
    waker.register(loop)
    assert loop.turn()
    waker._calls = Interrupted(lambda: waker.soon(lambda: made.append("second")))
    waker.soon(lambda: made.append("first"))
    assert loop.turn()
    assert made == ["first", "second"]


def test_no_call_of_many_threads_is_left(waker: Waker) -> None:
    loop, made = Loop(), list[int]()
    waker.register(loop)
    assert loop.turn()

    def leave() -> None:
        for number in range(CALLS):
            waker.soon(lambda number=number: made.append(number))

    threads = [threading.Thread(target=leave) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    while len(made) < THREADS * CALLS:
        assert loop.turn(), f"{THREADS * CALLS - len(made)} calls were left"
    for thread in threads:
        thread.join()


def test_a_call_that_fails_keeps_no_other(waker: Waker) -> None:
    loop, made = Loop(), list[int]()
    waker.register(loop)
    assert loop.turn()
    waker.soon(lambda: 1 / 0)
    waker.soon(lambda: made.append(1))
    with pytest.raises(ZeroDivisionError):
        loop.turn()
    assert loop.turn()
    assert made == [1]
