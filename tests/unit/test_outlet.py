"""Messages are written once, in order, by whichever thread writes them."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from broker.flight import Flight
from broker.outlet import Outlet


class Wire:
    """Takes what is written; a peer that takes no more keeps it from flowing."""

    def __init__(self, *, tls: bool = False) -> None:
        self.frame_max = 131_072
        self.unwritten = 0
        self.takes_two_threads = not tls
        self.written: list[bytes] = []

    def write(self, *buffers: bytes) -> None:
        self.written += buffers


def message(content: bytes) -> Any:
    return SimpleNamespace(content=content, sent=False, redelivered=False, _outcome=None)


@pytest.fixture
def flight() -> Flight:
    return Flight()


@pytest.fixture
def outlet(flight: Flight) -> Outlet:
    return Outlet(flight)


def attached(outlet: Outlet, **options: Any) -> Any:
    wire: Any = Wire(**options)
    outlet.attach(wire)
    return wire


def test_what_waits_is_written_where_it_is_published(flight: Flight, outlet: Outlet) -> None:
    wire = attached(outlet)
    flight.waiting += [message(b"a"), message(b"b")]
    assert outlet.write_here()
    assert b"".join(wire.written) == b"ab"
    assert list(flight.unconfirmed) == [1, 2]


def test_what_cannot_flow_is_left_to_the_loop(flight: Flight, outlet: Outlet) -> None:
    flight.waiting.append(message(b"a"))
    assert not outlet.write_here()
    wire = attached(outlet)
    outlet.blocked = True
    assert not outlet.write_here()
    outlet.blocked, wire.unwritten = False, 1
    assert not outlet.write_here()
    assert outlet.detach() is wire
    assert not outlet.write_here()
    assert not attached(outlet, tls=True).written
    assert not outlet.write_here()
    assert len(flight.waiting) == 1


def test_a_lost_connection_is_for_the_loop_to_meet(flight: Flight, outlet: Outlet) -> None:
    wire = attached(outlet)

    def broken(*_: bytes) -> None:
        raise ConnectionResetError

    wire.write = broken
    flight.waiting.append(message(b"a"))
    outlet.write_here()
    assert list(flight.unconfirmed) == [1]
    flight.keep_unconfirmed()
    again = attached(outlet)
    outlet.write()
    assert again.written == [b"a"]


def test_threads_that_write_leave_nothing_out_and_nothing_twice(
    flight: Flight, outlet: Outlet
) -> None:
    wire = attached(outlet)
    count, threads = 2_000, 8

    def publish(thread: int) -> None:
        for number in range(count):
            flight.waiting.append(message(b"%d-%d " % (thread, number)))
            if not outlet.write_here():
                outlet.write()

    workers = [threading.Thread(target=publish, args=(number,)) for number in range(threads)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    written = b"".join(wire.written).split()
    assert len(written) == count * threads == len(set(written))
    assert list(flight.unconfirmed) == list(range(1, count * threads + 1))
    order = [receipt.content.strip() for receipt in flight.unconfirmed.values()]
    assert order == written
