"""What lies between a worker's process and those of its pool, and what it reads of RabbitMQ."""

from __future__ import annotations

import os
import pickle
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from struct import pack
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from amqp.exceptions import UnexpectedFrame
from billiard.pool import ACK, DEATH, READY
from billiard.queues import _SimpleQueue
from celery.app.trace import fast_trace_task

from broker.body import encode
from consumers.pool.begun import Begun
from consumers.pool.child import Outbox
from consumers.pool.inbox import SMALL_BYTES, Inbox, InboxEnd
from consumers.pool.payload import payload_of, trace_job
from consumers.pool.results import JobResults
from consumers.transport import BufferedTCP


@pytest.fixture
def inbox() -> Any:
    made = Inbox()
    yield made
    made.close()


def take(inbox: Inbox) -> tuple[int, bytes] | None:
    taken = inbox.take(wait=False)
    return None if taken is None else (taken.number, bytes(taken.payload))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_jobs_of_any_size_come_out_as_they_went_in_and_in_order(inbox) -> None:
    payloads = [b"", b"a", b"b" * SMALL_BYTES, b"c" * (SMALL_BYTES + 1), b"d" * 3_000_000, b"e"]
    for number, payload in enumerate(payloads):
        assert inbox.put(number, payload)
    assert [take(inbox) for _ in payloads] == list(enumerate(payloads))
    assert take(inbox) is None


def test_what_is_put_beside_a_job_lies_beside_it_for_as_long_as_anybody_needs_it(inbox) -> None:
    for number, payload in enumerate((b"", b"a", b"b" * 100_000)):
        assert inbox.put(number, payload, b"c" * 1_000_000)
        assert inbox.put(9, b"next")
        taken = inbox.take(wait=False)
        assert take(inbox) == (9, b"next")
        assert (taken.number, bytes(taken.payload)) == (number, payload)
        assert [bytes(each) for each in taken.buffers] == [b"c" * 1_000_000]
        assert all(each.readonly for each in taken.buffers)


def test_a_job_travels_without_what_its_body_says_and_a_large_array_uncopied(inbox) -> None:
    body = encode([[np.arange(10_000.0)], {}, None])
    for content, large in ((body.content, True), (b"[[1], {}, null]", False)):
        kind = body.content_type if large else "application/json"
        request = {"id": "1", "args": [1], "kwargs": {"a": 2}}
        job = (fast_trace_task, ("demo", "1", request, content, kind, "binary"), {})
        payload, buffer = payload_of((0, (7, None, *job)))
        assert (buffer is content) is large
        assert inbox.put(7, payload, buffer)
        taken = inbox.take(wait=False)
        found = pickle.loads(taken.payload, buffers=taken.buffers)
        function, args, _ = found[1][2:]
        assert function is trace_job
        assert args[2] == {"id": "1"}
        assert bytes(args[3]) == content
    assert request["args"] == [1]


def test_a_full_inbox_says_so_and_loses_nothing(inbox) -> None:
    count = 0
    while inbox.put(count, b"x" * 10_000):
        count += 1
        assert count < 10_000
    assert count >= 2
    assert take(inbox) == (0, b"x" * 10_000)
    while not inbox.put(count, b"last"):
        assert take(inbox) is not None
    assert inbox.drain()[-1] == count


def test_what_is_drained_is_what_nobody_has_taken(inbox) -> None:
    for number in range(5):
        inbox.put(number, b"x" * (SMALL_BYTES * 2 if number % 2 else 1))
    open_before = descriptors()
    assert take(inbox) == (0, b"x")
    assert inbox.drain() == [1, 2, 3, 4]
    assert inbox.drain() == []
    assert descriptors() == open_before


def test_the_end_comes_behind_the_jobs_and_for_one_process_each(inbox) -> None:
    inbox.put(1, b"x")
    inbox.put_end()
    inbox.put_end()
    assert take(inbox) == (1, b"x")
    for _ in range(2):
        with pytest.raises(InboxEnd):
            inbox.take(wait=True)


def test_a_process_whose_pool_is_gone_ends(inbox) -> None:
    inbox.close_put()
    with pytest.raises(InboxEnd):
        inbox.take(wait=True)


@pytest.fixture
def pipe() -> Any:
    queue = _SimpleQueue(rnonblock=True)
    yield queue
    queue.close()


class Results(JobResults):
    """Only what reads; billiard's needs a pool."""

    def __init__(self) -> None:
        self._buffers: dict[int, bytearray] = {}
        self.cache: dict[int, Any] = {}
        self.seen: list[Any] = []

    def on_state_change(self, message: Any) -> None:
        self.seen.append(message)


def begins(number: int) -> Any:
    return (ACK, (number, None, number + 0.5, 77, None))


def test_a_beginning_is_noted_and_told_with_a_result(pipe) -> None:
    begun, results = Begun(), Results()
    outbox, reader = Outbox(pipe, begun), pipe._reader.fileno()
    assert begun.last() is None
    outbox.put(begins(0))
    assert begun.last() == (0, 0.5)
    assert not results.read(reader)
    assert results.seen == []
    ready = (READY, (0, "result"))
    outbox.put(ready)
    assert not results.read(reader)
    # What it has must not wait until the next is done.
    outbox.put(begins(1))
    results.read(reader)
    assert results.seen == [begins(0), ready, begins(1)]
    outbox.put((READY, (1, "x" * 30_000)))
    outbox.flush()
    outbox.flush()
    results.read(reader)
    assert results.seen[3:] == [(READY, (1, "x" * 30_000))]


def test_what_somebody_has_looked_at_is_not_told_again(pipe) -> None:
    results = Results()
    outbox = Outbox(pipe, Begun())
    results.cache = {
        number: SimpleNamespace(_accepted=known) for number, known in ((1, True), (2, False))
    }
    for number in (1, 2, 3):
        outbox.put(begins(number))
        outbox.put((READY, (number,)))
    outbox.flush()
    results.read(pipe._reader.fileno())
    assert [args[0] for kind, args in results.seen if kind == ACK] == [2, 3]
    assert [args[0] for kind, args in results.seen if kind == READY] == [1, 2, 3]


class Confirmed:
    """A reply whose confirm comes when it is told to."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Any], None]] = []

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    def end(self) -> None:
        for callback in self._callbacks:
            callback(self)


class Replies:
    """Those of the job that ended last, and what is done after the confirms that came."""

    def __init__(self) -> None:
        self.of_job: list[Any] = []
        self.later: list[Callable[[], None]] = []

    def unconfirmed(self) -> list[Any]:
        found, self.of_job = self.of_job, []
        return found

    def soon(self, work: Callable[[], None]) -> None:
        self.later.append(work)


def test_the_result_of_a_call_is_told_when_its_replies_are_confirmed_and_no_other_waits(
    pipe,
) -> None:
    results, replies = Results(), Replies()
    outbox = Outbox(pipe, Begun(), replies)
    reader = pipe._reader.fileno()
    slow, batch, plain = (READY, (1,)), (READY, (2,)), (READY, (3,))
    receipts = [Confirmed() for _ in range(3)]
    replies.of_job = receipts[:1]
    outbox.put(slow)
    replies.of_job = receipts[1:]
    outbox.put(batch)
    outbox.put(plain)
    outbox.flush()
    results.read(reader)
    assert results.seen == [plain]
    receipts[1].end()
    assert replies.later == []
    receipts[2].end()
    receipts[0].end()
    for work in replies.later:
        work()
    results.read(reader)
    assert results.seen == [plain, batch, slow]


def test_a_process_ends_when_its_replies_are_confirmed(pipe) -> None:
    results, replies = Results(), Replies()
    outbox = Outbox(pipe, Begun(), replies)
    receipt = Confirmed()
    replies.of_job = [receipt]
    outbox.put((READY, (1,)))
    ending = threading.Thread(target=outbox.finish)
    ending.start()
    assert not results.read(pipe._reader.fileno())
    receipt.end()
    ending.join(10)
    assert not ending.is_alive()
    results.read(pipe._reader.fileno())
    assert results.seen == [(READY, (1,))]


def test_results_are_read_wherever_they_are_cut(pipe) -> None:
    outbox = Outbox(pipe, Begun())
    messages = [(DEATH, (number, "x" * number)) for number in (0, 3, 300)]
    for message in messages:
        outbox.put(message)
    data = os.read(pipe._reader.fileno(), 100_000)
    for cut in range(len(data)):
        results = Results()
        for part in (data[:cut], data[cut:]):
            os.write(pipe._writer.fileno(), part)
            results.read(pipe._reader.fileno())
        assert results.seen == messages


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


@pytest.fixture
def wire() -> Any:
    here, there = socket.socketpair()
    transport = BufferedTCP("localhost")
    transport.sock = here
    transport._setup_transport()
    yield transport, there
    here.close()
    there.close()


def test_frames_are_read_wherever_they_are_cut(wire) -> None:
    transport, there = wire
    frames = [(1, 1, b"method"), (2, 1, b""), (3, 1, b"\xce" * 20), (8, 0, b"")]
    data = b"".join(frame(*each) for each in frames)
    for cut in range(1, len(data)):
        found = []
        for part in (data[:cut], data[cut:]):
            there.sendall(part)
            transport.fill()
            while (each := transport.buffered()) is not None:
                found.append(each)
        assert found == frames


def test_waiting_for_a_frame_ends_in_time_and_keeps_what_came(wire) -> None:
    transport, there = wire
    whole = frame(1, 1, b"method")
    there.sendall(whole[:9])
    transport.sock.settimeout(0.01)
    with pytest.raises(TimeoutError):
        transport.read_frame()
    there.sendall(whole[9:])
    assert transport.read_frame() == (1, 1, b"method")


def test_what_is_no_frame_and_a_lost_connection_are_errors(wire) -> None:
    transport, there = wire
    there.sendall(frame(1, 1, b"method")[:-1] + b"\x00")
    with pytest.raises(UnexpectedFrame):
        transport.read_frame()
    transport.connected = True
    there.close()
    with pytest.raises(OSError, match="closed connection"):
        transport.fill()
    assert not transport.connected
