"""Ctrl-C at every line of a replay and of a deletion: the account is exact each time."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from broker.errors import Interrupted, RabbitryError
from broker.message import Message
from consumers.cli.interrupt import Stop, interruptible
from consumers.dead_letters import drop as drop_module
from consumers.dead_letters import replay as replay_module
from consumers.dead_letters.drop import Dropping, drop
from consumers.dead_letters.letter import Filter
from consumers.dead_letters.replay import Tally, replay
from consumers.queues.browse import Delivery
from tests.letters import case

LETTERS = 6
# Refused by RabbitMQ, and never sent since nobody knows where to.
REFUSED, ASTRAY = "3", "4"


def delivery(number: int) -> Delivery:
    exchange = None if str(number) == ASTRAY else "jobs"
    headers = {"task": "demo.add", **case(exchange=exchange).headers()}
    properties = {"message_id": str(number), "content_type": "application/json"}
    return Delivery(number + 1, "jobs.dead", "key", False, b"[]", headers, properties)


class Queue:
    """Stands for a `Browser`: what is let go is gone."""

    def __init__(self) -> None:
        self.gone: list[str] = []

    def deliveries(self, *, stopped: Callable[[], bool]) -> Iterator[Delivery]:
        for number in range(LETTERS):
            if stopped():
                return
            yield delivery(number)

    def let_go(self, delivery: Delivery) -> None:
        self.gone.append(delivery.id)

    def pause(self, seconds: float, *, stopped: Callable[[], bool]) -> None:
        pass

    def beat(self) -> None:
        pass


class Receipt:
    """Is confirmed, or refused, by the second look."""

    def __init__(self, message: Message) -> None:
        self.id = message.id
        self.looks = 0
        self.done = False

    def wait(self, timeout_s: float) -> None:
        self.looks += 1
        if self.looks == 1:
            raise TimeoutError
        self.done = True
        if self.id == REFUSED:
            raise RabbitryError("no queue took it")


class Confirmed:
    """Stands for a `ConfirmedChannel`: knows what it was given."""

    def __init__(self) -> None:
        self.receipts: list[Receipt] = []

    def publish(self, message: Message, *, exchange: str, routing_key: str) -> Receipt:
        self.receipts.append(Receipt(message))
        return self.receipts[-1]


class Lines:
    """Presses Ctrl-C at the nth line that a module's code comes to."""

    def __init__(self, file: str, at: int) -> None:
        self.file, self.at = file, at
        self.come = 0

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> Lines | None:
        if frame.f_code.co_filename != self.file:
            return None
        if event == "line":
            self.come += 1
            if self.come == self.at:
                signal.raise_signal(signal.SIGINT)
        return self


def pressed_at(module: Any, line: int, account: Callable[[], str], work: Callable[[Stop], object]):
    """Press Ctrl-C at a line; return what was told, or None where the work ended before it."""
    lines = Lines(module.__file__, line)
    before = sys.gettrace()
    try:
        with interruptible(account) as stop:
            sys.settrace(lines)
            try:
                work(stop)
            finally:
                sys.settrace(before)
    except Interrupted as exc:
        return str(exc)
    assert lines.come < line
    return None


@pytest.mark.parametrize("rate", [None, 100.0])
def test_a_replay_accounts_for_all_it_sent_wherever_it_is_interrupted(rate: float | None) -> None:
    stopped_after = set()
    line = 0
    while True:
        line += 1
        queue, confirmed, tally = Queue(), Confirmed(), Tally()
        told = pressed_at(
            replay_module,
            line,
            lambda tally=tally: f"{tally.replayed} replayed, {tally.looked} looked at",
            lambda stop, queue=queue, confirmed=confirmed, tally=tally: replay(
                queue,  # type: ignore[arg-type]
                confirmed,  # type: ignore[arg-type]
                "jobs.dead",
                meant=Filter(),
                rate=rate,
                tally=tally,
                stopped=stop,
            ),
        )
        sent = [receipt.id for receipt in confirmed.receipts]
        assert all(receipt.done for receipt in confirmed.receipts)
        assert queue.gone == [id for id in sent if id != REFUSED]
        assert tally.replayed == len(queue.gone)
        assert {each.letter.id for each in tally.stayed} >= {REFUSED} & set(sent)
        assert len(sent) <= tally.looked <= len(sent) + 2
        if told is None:
            break
        assert told == f"interrupted: {len(queue.gone)} replayed, {tally.looked} looked at"
        stopped_after.add(len(sent))
    assert sent == ["0", "1", "2", "3", "5"]
    assert stopped_after == set(range(6))


def test_a_deletion_accounts_for_all_it_deleted_wherever_it_is_interrupted() -> None:
    stopped_after = set()
    line = 0
    while True:
        line += 1
        queue = Queue()
        dropping = Dropping(Counter({("jobs.dead", id): 1 for id in "0124"}))
        told = pressed_at(
            drop_module,
            line,
            lambda dropping=dropping: f"{dropping.dropped} deleted",
            lambda stop, queue=queue, dropping=dropping: drop(
                queue,  # type: ignore[arg-type]
                "jobs.dead",
                meant=Filter(),
                dropping=dropping,
                stopped=stop,
            ),
        )
        assert dropping.dropped == len(queue.gone) == 4 - dropping.left.total()
        if told is None:
            break
        assert told == f"interrupted: {len(queue.gone)} deleted"
        stopped_after.add(len(queue.gone))
    assert queue.gone == ["0", "1", "2", "4"]
    assert stopped_after == set(range(5))


def test_the_second_ctrl_c_ends_at_once_and_says_that_the_account_may_lack_something() -> None:
    reached = []

    def pressed_twice() -> None:
        with interruptible(lambda: "2 done") as stop:
            signal.raise_signal(signal.SIGINT)
            reached.append(stop())
            signal.raise_signal(signal.SIGINT)
            reached.append("behind the second")

    with pytest.raises(Interrupted, match=r"before all was accounted for: 2 done"):
        pressed_twice()
    assert reached == [True]


def test_afterwards_ctrl_c_does_what_it_did_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interruptible(lambda: "all done") as stop:
        assert not stop()
    assert signal.getsignal(signal.SIGINT) is before
