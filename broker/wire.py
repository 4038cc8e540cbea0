"""The socket of one of py-amqp's connections, written and read without ever waiting for it.

py-amqp opens connections and channels and knows every method; what it does for each message costs
more than all the rest of publishing. While a `Wire` holds the connection, frames are written from
a buffer as far as the socket takes them, confirms are read in batches, and every other frame goes
to py-amqp as before. It relies on py-amqp's inside, which is why that is pinned to one version.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections import deque
from struct import Struct
from typing import Any, Protocol

from broker.deliveries import Deliveries
from broker.frames import CHANNEL, END, METHOD

READ_BYTES = 256 * 2**10
# How often the socket is read at one go, before whoever else uses the thread has a turn.
READS = 16

_frame = Struct(">BHI").unpack_from
_BASIC_ACK, _BASIC_NACK = b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x78"
_CHANNEL_CLOSE = b"\x00\x14\x00\x28"
_CONNECTION_BLOCKED = b"\x00\x0a\x00\x3c"
# The start of every basic.ack on our channel: its frame's header, and the method.
_ACK = Struct(">BHI").pack(METHOD, CHANNEL, 13) + _BASIC_ACK
_ACK_BYTES = len(_ACK) + 9 + len(END)
_END = END[0]
_FRAME_START_BYTES = 7

# Whether positive, the delivery tag, whether all before it are meant too.
Confirm = tuple[bool, int, bool]


class Reader(Protocol):
    """Who is told what was read."""

    def confirmed(self, confirms: list[Confirm]) -> None:
        """Settle what RabbitMQ has confirmed, in the order in which it did."""

    def channel_closed(self, code: int, text: str) -> None:
        """Deal with RabbitMQ's closing of our channel."""

    def blocked(self, reason: str | None) -> None:
        """Stop publishing; None: go on."""


class Wire:
    """An open connection's socket while it is read and written by one thread.

    Args:
        connection: py-amqp's.
        reader: is told what was read.

    Attributes:
        sock: to wait for.
        unwritten: how many bytes wait until the socket takes them.
        deliveries: takes what is delivered on the channel, where anything is consumed there.
    """

    def __init__(self, connection: Any, reader: Reader) -> None:
        self.unwritten = 0
        self.deliveries: Deliveries | None = None
        self._connection = connection
        self._transport = connection.transport
        self._reader = reader
        self._out: deque[memoryview] = deque()
        # Heartbeats are written by the connection's own thread, messages by others too.
        self._writing = threading.RLock()
        self._halted = False
        self._rest: bytes = self._transport._read_buffer
        self._read_to = 0
        self._transport._read_buffer = b""
        self._open = True
        self._was_writing = self._transport._write
        # py-amqp writes heartbeats and answers through here too, from a buffer that it uses again.
        self._transport._write = lambda data: self.write(bytes(data))
        connection.on_unblocked = lambda: reader.blocked(None)
        self.sock = self._transport.sock
        self.sock.settimeout(0)

    @property
    def takes_two_threads(self) -> bool:
        """Whether one thread may write while another reads; a TLS session allows only one."""
        return not isinstance(self.sock, ssl.SSLSocket)

    @property
    def frame_max(self) -> int:
        """The size in bytes of the largest frame, as both sides agreed."""
        return int(self._connection.frame_max)

    # -- writing ------------------------------------------------------------------------

    def write(self, *buffers: bytes | memoryview) -> None:
        """Write as much as the socket takes and keep the rest.

        Raises:
            OSError: the connection is lost.
        """
        with self._writing:
            if self._halted:
                raise ConnectionResetError("the connection is closed")
            if self._out:
                for data in buffers:
                    self._keep(data)
                self.flush()
                return
            for index, data in enumerate(buffers):
                written = self._send(data)
                if written < len(data):
                    self._keep(memoryview(data)[written:])
                    for later in buffers[index + 1 :]:
                        self._keep(later)
                    return

    def flush(self) -> None:
        """Go on writing what is kept."""
        with self._writing:
            while self._out:
                data = self._out[0]
                written = self._send(data)
                self.unwritten -= written
                if written < len(data):
                    self._out[0] = data[written:]
                    return
                self._out.popleft()

    def _keep(self, data: bytes | memoryview) -> None:
        if len(data):
            self._out.append(memoryview(data))
            self.unwritten += len(data)

    def _send(self, data: bytes | memoryview) -> int:
        if not len(data):
            return 0
        try:
            sent = self.sock.send(data)
        except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0
        # py-amqp's heartbeats look at whether this has changed.
        self._connection.bytes_sent += 1
        return int(sent)

    # -- reading ------------------------------------------------------------------------

    @property
    def has_buffered(self) -> bool:
        """Whether TLS holds bytes that the socket no longer announces."""
        pending = getattr(self.sock, "pending", None)
        return bool(pending is not None and pending())

    def read(self) -> None:
        """Read what is there and deal with it.

        Raises:
            OSError: the connection is lost.
            amqp.exceptions.AMQPError: RabbitMQ closed it.
        """
        for _ in range(READS):
            try:
                data = self.sock.recv(READ_BYTES)
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            if not data:
                raise ConnectionResetError("RabbitMQ closed the connection")
            self._connection.bytes_recv += 1
            self._take(self._rest + data if self._rest else data)
            if not self._open or (len(data) < READ_BYTES and not self.has_buffered):
                return

    def _take(self, data: bytes) -> None:
        """Deal with all frames that are complete, and keep what is left of the last."""
        self._rest, self._read_to = data, 0
        confirms: list[Confirm] = []
        at, end = 0, len(data)
        while end - at > _FRAME_START_BYTES:
            if data.startswith(_ACK, at) and end - at >= _ACK_BYTES:
                tag = int.from_bytes(data[at + 11 : at + 19], "big")
                confirms.append((True, tag, data[at + 19] > 0))
                at += _ACK_BYTES
                continue
            kind, channel, size = _frame(data, at)
            stop = at + _FRAME_START_BYTES + size
            if stop >= end:
                break
            if data[stop] != _END:
                raise ConnectionError(f"a frame from RabbitMQ ends in {data[stop]:#04x}")
            payload = data[at + _FRAME_START_BYTES : stop]
            at = stop + 1
            if kind == METHOD and channel == CHANNEL and payload.startswith(_BASIC_NACK):
                tag = int.from_bytes(payload[4:12], "big")
                confirms.append((False, tag, bool(payload[12] & 1)))
                continue
            self._read_to = at
            # Returns stand before the confirms of their messages: nothing may overtake.
            if confirms:
                self._reader.confirmed(confirms)
                confirms = []
            self._deal_with(kind, channel, payload)
            if not self._open:
                return  # given back, with what is left
        self._rest, self._read_to = data[at:], 0
        if confirms:
            self._reader.confirmed(confirms)

    def _deal_with(self, kind: int, channel: int, payload: bytes) -> None:
        deliveries = self.deliveries
        if deliveries is not None and channel == CHANNEL and deliveries.take(kind, payload):
            self._connection.bytes_recv += 1
        elif kind == METHOD and channel == CHANNEL and payload.startswith(_CHANNEL_CLOSE):
            # py-amqp would answer by opening the channel again, and wait for that.
            code = int.from_bytes(payload[4:6], "big")
            text = payload[7 : 7 + payload[6]].decode("utf-8", "replace")
            self._reader.channel_closed(code, text)
        elif kind == METHOD and payload.startswith(_CONNECTION_BLOCKED):
            # py-amqp replaces RabbitMQ's reason by a text of its own.
            self._reader.blocked(payload[5 : 5 + payload[4]].decode("utf-8", "replace"))
        else:
            self._connection.on_inbound_frame((kind, channel, payload))

    # -- giving it back -----------------------------------------------------------------

    def halt(self) -> None:
        """Write no more, whoever would; nobody is writing when it returns."""
        with self._writing:
            self._halted = True

    def stop(self) -> None:
        """Read no further; what is left belongs to py-amqp."""
        self._open = False

    def give_back(self, *, timeout_s: float) -> None:
        """Let py-amqp write and read again, waiting at most so long for each step.

        Raises:
            OSError: what was kept cannot be written.
        """
        self._open = False
        self.sock.settimeout(timeout_s)
        self._transport._write = self._was_writing
        self._transport._read_buffer, self._rest = self._rest[self._read_to :], b""
        kept = b"".join(self._out)
        self._out.clear()
        self.unwritten = 0
        if kept:
            self._was_writing(kept)


def patient(sock: socket.socket, *, seconds: float) -> None:
    """Let the heartbeat decide when a peer that takes no bytes is lost, and not the kernel.

    py-amqp gives the kernel one second: a broker that pauses, or that an alarm stops from reading,
    would lose the connection and be sent everything again.
    """
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        sock.setsockopt(socket.IPPROTO_TCP, option, round(seconds * 1000))
