"""Heartbeats go out while a loop runs a job itself, and only then."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from broker.frames import END
from consumers.keepalive import HEARTBEAT, Keepalive, keep_alive
from tests.waiting import until

HEARTBEAT_S = 0.04


class Channel:
    """Counts how often it writes what it has collected."""

    def __init__(self) -> None:
        self.flushed = 0

    def flush(self) -> None:
        self.flushed += 1


class Wire:
    """A connection of py-amqp's that remembers what is written, and by which threads."""

    def __init__(self) -> None:
        self.connected = True
        self.channel = Channel()
        # Channel 0 is the connection itself, which collects nothing.
        self.channels: dict[int, Any] = {0: object(), 1: self.channel}
        self.last_heartbeat_received = 0.0
        self.written: list[bytes] = []
        self.transport = SimpleNamespace(write=self._write)

    def _write(self, data: bytes) -> None:
        assert threading.current_thread() is not threading.main_thread()
        self.written.append(data)


def test_a_heartbeat_is_a_whole_frame() -> None:
    kind, channel, size = HEARTBEAT[0], HEARTBEAT[1:3], HEARTBEAT[3:7]
    assert (kind, channel, size, HEARTBEAT[7:]) == (8, b"\0\0", b"\0\0\0\0", END)


def test_heartbeats_are_written_for_as_long_as_a_job_runs() -> None:
    wire, keepalive = Wire(), Keepalive(heartbeat_s=HEARTBEAT_S)
    with keepalive.busy(wire):
        assert wire.channel.flushed == 1
        until(lambda: len(wire.written) >= 5, timeout_s=10, what="heartbeats")
    after = len(wire.written)
    assert set(wire.written) == {HEARTBEAT}
    assert time.monotonic() - wire.last_heartbeat_received < 10
    other = Wire()
    with keepalive.busy(other):
        until(lambda: len(other.written) >= 3, timeout_s=10, what="heartbeats of another")
    assert len(wire.written) == after


def test_a_connection_that_is_lost_meanwhile_does_no_harm() -> None:
    wire, keepalive = Wire(), Keepalive(heartbeat_s=HEARTBEAT_S)
    tried = threading.Event()

    def lost(_: bytes) -> None:
        tried.set()
        raise OSError("broken pipe")

    wire.transport.write = lost
    with keepalive.busy(wire):
        assert tried.wait(10)
    with keepalive.busy(None):
        pass
    other = Wire()
    with keepalive.busy(other):
        until(lambda: other.written, timeout_s=10, what="the thread to go on")


def test_a_pool_runs_its_jobs_as_before_and_lets_errors_through() -> None:
    wire = Wire()

    def apply(target: Any, *args: Any, **_: Any) -> Any:
        return target(*args)

    pool = SimpleNamespace(on_apply=apply)
    keep_alive(pool, lambda: wire, heartbeat_s=HEARTBEAT_S)
    assert pool.on_apply(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        pool.on_apply(divmod, 1, 0)
    assert wire.channel.flushed == 2
