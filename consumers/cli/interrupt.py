"""Ctrl-C while something is done piece by piece: no piece is left without its account."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from types import FrameType

from broker.errors import Interrupted

# How long an interrupted command waits for what RabbitMQ has not confirmed yet.
INTERRUPTED_S = 5.0


class Stop:
    """Whether Ctrl-C was pressed: called, it says so."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self) -> bool:
        return self.requested


@contextmanager
def interruptible(
    account: Callable[[], str], *, give_up: Callable[[], object] = lambda: None
) -> Iterator[Stop]:
    """Turn Ctrl-C into a word between two pieces of work, and then into an error.

    What is done inside looks at the `Stop` between its pieces, and ends when it says so: an
    exception could fall between a piece and its account. The second Ctrl-C is one.

    Args:
        account: says what was done.
        give_up: ends the waiting for RabbitMQ; called, in a thread of its own, where work goes on
            for `INTERRUPTED_S` after Ctrl-C.

    Raises:
        Interrupted: Ctrl-C was pressed; it holds the account.
    """
    stop = Stop()
    timer = Timer(INTERRUPTED_S, give_up)
    timer.daemon = True

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        timer.start()

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield stop
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted before all was accounted for: {account()}") from None
    finally:
        signal.signal(signal.SIGINT, before)
        timer.cancel()
    if stop.requested:
        raise Interrupted(f"interrupted: {account()}")
