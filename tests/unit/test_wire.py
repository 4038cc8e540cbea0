"""Frames over a socket that takes and gives them in pieces."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from struct import pack
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.frames import CHANNEL
from broker.wire import Wire


def method(channel: int, signature: tuple[int, int], arguments: bytes = b"") -> bytes:
    payload = pack(">HH", *signature) + arguments
    return pack(">BHI", 1, channel, len(payload)) + payload + b"\xce"


def ack(tag: int, *, multiple: bool = False) -> bytes:
    return method(CHANNEL, (60, 80), pack(">QB", tag, multiple))


def nack(tag: int, *, multiple: bool = False) -> bytes:
    return method(CHANNEL, (60, 120), pack(">QB", tag, multiple))


def short(text: str) -> bytes:
    return bytes((len(text.encode()),)) + text.encode()


class Peer:
    """The other end, and a connection as far as a wire needs one."""

    def __init__(self) -> None:
        self.sock, self.far = socket.socketpair()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.events: list[Any] = []
        self.transport = SimpleNamespace(sock=self.sock, _read_buffer=b"", _write=self.sock.sendall)
        self.bytes_sent = self.bytes_recv = 0
        self.frame_max = 131_072
        self.on_unblocked: Any = None
        self.wire = Wire(self, self)

    def on_inbound_frame(self, frame: tuple[int, int, bytes]) -> None:
        self.events.append(("frame", frame))

    def confirmed(self, confirms: list[Any]) -> None:
        self.events += [("confirm", *each) for each in confirms]

    def channel_closed(self, code: int, text: str) -> None:
        self.events.append(("closed", code, text))
        self.wire.stop()

    def blocked(self, reason: str | None) -> None:
        self.events.append(("blocked", reason))


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.sock.close()
    peer.far.close()


FRAMES = [
    (ack(1), ("confirm", True, 1, False)),
    (ack(2**40, multiple=True), ("confirm", True, 2**40, True)),
    (nack(7), ("confirm", False, 7, False)),
    (nack(9, multiple=True), ("confirm", False, 9, True)),
    (pack(">BHI", 8, 0, 0) + b"\xce", ("frame", (8, 0, b""))),
    (method(0, (10, 60), short("low on disk")), ("blocked", "low on disk")),
    (method(2, (60, 80), pack(">QB", 3, 0)), ("frame", (1, 2, pack(">HHQB", 60, 80, 3, 0)))),
    (method(CHANNEL, (20, 20), b"\x01"), ("frame", (1, CHANNEL, pack(">HHB", 20, 20, 1)))),
]


@given(chosen=st.lists(st.sampled_from(FRAMES), max_size=12), cuts=st.lists(st.integers(1, 40)))
def test_frames_are_told_in_order_however_they_are_cut(chosen: Any, cuts: list[int]) -> None:
    peer = Peer()
    data = b"".join(frame for frame, _ in chosen)
    try:
        for size in [*cuts, len(data)]:
            piece, data = data[:size], data[size:]
            if piece:
                peer.far.sendall(piece)
                peer.wire.read()
        assert peer.events == [event for _, event in chosen]
    finally:
        peer.sock.close()
        peer.far.close()


def test_what_stands_behind_the_closing_of_the_channel_is_left_to_py_amqp(peer: Peer) -> None:
    close = pack(">H", 404) + short("NOT_FOUND - no exchange 'ü'") + pack(">HH", 60, 40)
    rest = ack(5) + ack(6)[:10]
    peer.far.sendall(ack(4) + method(CHANNEL, (20, 40), close) + rest)
    peer.wire.read()
    assert peer.events == [
        ("confirm", True, 4, False),
        ("closed", 404, "NOT_FOUND - no exchange 'ü'"),
    ]
    peer.wire.give_back(timeout_s=1.0)
    assert peer.transport._read_buffer == rest


def test_bytes_that_the_socket_does_not_take_are_kept_and_written_later(peer: Peer) -> None:
    parts = [bytes((number,)) * 50_000 for number in range(8)]
    peer.wire.write(*parts[:5])
    assert peer.wire.unwritten > 0
    peer.wire.write(memoryview(parts[5]), parts[6])
    # py-amqp's own frames, such as heartbeats, keep their place, and its buffer is its own again.
    buffer = bytearray(parts[7])
    peer.transport._write(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    got = bytearray()
    while len(got) < 8 * 50_000:
        got += peer.far.recv(10_000)
        peer.wire.flush()
    assert bytes(got) == b"".join(parts)
    assert peer.wire.unwritten == 0
    assert peer.bytes_sent > 0


def test_what_is_kept_is_written_when_the_wire_is_given_back(peer: Peer) -> None:
    peer.wire.write(b"x" * 400_000)
    kept = peer.wire.unwritten
    assert kept
    taken = peer.far.recv(1_000_000)
    while len(taken) < 400_000 - kept:
        taken += peer.far.recv(1_000_000)
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    peer.wire.give_back(timeout_s=5.0)
    while len(taken) < 400_000:
        taken += peer.far.recv(1_000_000)
    assert taken == b"x" * 400_000


def test_a_closed_connection_is_an_error(peer: Peer) -> None:
    peer.far.close()
    with pytest.raises(OSError, match="closed the connection"):
        peer.wire.read()


def test_a_frame_that_does_not_end_is_an_error(peer: Peer) -> None:
    peer.far.sendall(pack(">BHI", 8, 0, 0) + b"\x00" + ack(1))
    with pytest.raises(OSError, match="ends in 0x00"):
        peer.wire.read()
