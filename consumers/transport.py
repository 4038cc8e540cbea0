"""A worker's connection to RabbitMQ, read as a whole instead of field by field.

py-amqp asks the socket for seven bytes, then for a frame, then for its end, nine times for a
message, and changes the socket's mode before and after each; kombu takes one message in a turn of
the event loop. Here one read takes what is there, and all messages in it have their turn at once.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from struct import Struct
from typing import Any

from amqp.exceptions import RecoverableConnectionError, UnexpectedFrame
from amqp.transport import SSLTransport, TCPTransport
from kombu.transport import TRANSPORT_ALIASES, pyamqp

from broker.frames import END, OVERHEAD_BYTES
from consumers.acks import CollectingChannel

# By this name kombu finds it, and shows where it has connected to.
TRANSPORT = "rabbitry"
TRANSPORT_ALIASES[TRANSPORT] = "consumers.transport:JobTransport"

READ_BYTES = 256 * 2**10
_start = Struct(">BHI").unpack_from
_START_BYTES = 7
_END = END[0]
_LOST = "Server unexpectedly closed connection"

Frame = tuple[int, int, bytes]


class _Buffered:
    """What was read from a socket, frame by frame; for one of py-amqp's transports."""

    sock: Any
    connected: bool
    _quick_recv: Callable[[int], bytes]
    _data = b""
    _at = 0

    def _setup_transport(self) -> None:
        super()._setup_transport()  # type: ignore[misc]
        self._data, self._at = b"", 0

    def buffered(self) -> Frame | None:
        """Return the next frame of what was read already; None where it is not complete.

        Raises:
            amqp.exceptions.UnexpectedFrame: that is no frame.
        """
        data, at = self._data, self._at
        if len(data) - at < OVERHEAD_BYTES:
            return None
        kind, channel, size = _start(data, at)
        stop = at + _START_BYTES + size
        if stop >= len(data):
            return None
        if data[stop] != _END:
            raise UnexpectedFrame(f"a frame from RabbitMQ ends in {data[stop]:#04x}")
        self._at = stop + 1
        return kind, channel, data[at + _START_BYTES : stop]

    def fill(self) -> None:
        """Read what is there, or wait for it, as the socket's mode is.

        Raises:
            TimeoutError: nothing came in time.
            OSError: the connection is lost.
        """
        try:
            read = self._quick_recv(READ_BYTES)
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise TimeoutError from None
        except TimeoutError:
            raise
        except OSError:
            self.connected = False
            raise
        if not read:
            self.connected = False
            raise OSError(_LOST)
        self._data = self._data[self._at :] + read if self._at < len(self._data) else read
        self._at = 0

    def read_frame(self, *_: Any) -> Frame:
        """Return the next frame, which is waited for as the socket's mode is.

        Raises:
            TimeoutError: it did not come in time; what there is of it is kept.
            OSError: the connection is lost.
        """
        while (frame := self.buffered()) is None:
            self.fill()
        return frame

    @property
    def pending(self) -> bool:
        """Whether TLS holds bytes that the socket no longer announces."""
        pending = getattr(self.sock, "pending", None)
        return bool(pending is not None and pending())


class BufferedTCP(_Buffered, TCPTransport):  # type: ignore[misc]
    """A socket."""


class BufferedTLS(_Buffered, SSLTransport):  # type: ignore[misc]
    """A socket with TLS."""


class JobConnection(pyamqp.Connection):  # type: ignore[misc]
    """A connection whose channels collect acknowledgements.

    Attributes:
        turns: whether an event loop turns for it.
    """

    Channel = CollectingChannel
    turns = False
    _loop: Any = None

    def Transport(  # noqa: N802 - py-amqp's name
        self,
        host: str,
        connect_timeout: float,
        tls: Any = False,
        read_timeout: float | None = None,
        write_timeout: float | None = None,
        socket_settings: Any = None,
        **options: Any,
    ) -> Any:
        """Return what reads and writes the socket; py-amqp calls this."""
        return (BufferedTLS if tls else BufferedTCP)(
            host,
            connect_timeout=connect_timeout,
            ssl=tls,
            read_timeout=read_timeout,
            write_timeout=write_timeout,
            socket_settings=socket_settings,
            **options,
        )

    def blocking_read(self, timeout: float | None = None) -> Any:
        """Deal with one frame."""
        transport = self.transport
        frame = transport.buffered()
        if frame is None:
            with transport.having_timeout(timeout):
                frame = transport.read_frame()
        return self.on_inbound_frame(frame)

    def read(self) -> None:
        """Deal with all frames that are there, without waiting.

        Raises:
            OSError: the connection is lost.
            amqp.exceptions.AMQPError: RabbitMQ closed it.
        """
        transport = self.transport
        sock = transport.sock
        before = sock.gettimeout()
        sock.settimeout(0)
        try:
            transport.fill()
            while transport.pending:
                transport.fill()
        except TimeoutError:
            pass
        finally:
            sock.settimeout(before)
        self._deal()

    def attach(self, loop: Any) -> None:
        """Read and write in the turns of an event loop, until it or the connection ends."""
        self._loop, self.turns = loop, True
        loop.on_tick.add(self._tick)
        loop.on_close.add(self._detach)

    def close(self, *args: Any, **options: Any) -> Any:
        """Write what is collected, and close."""
        self._flush()
        return super().close(*args, **options)

    def collect(self) -> None:
        """Forget what belonged to the connection, which is gone."""
        self._leave()
        super().collect()

    def _tick(self) -> None:
        # Whoever waits for an answer may have read more than that; the socket announces it no more.
        self._deal()
        self._flush()

    def _deal(self) -> None:
        transport = self._transport
        while transport is not None and (frame := transport.buffered()) is not None:
            self.on_inbound_frame(frame)
            transport = self._transport

    def _flush(self) -> None:
        for channel in tuple((self.channels or {}).values()):
            if isinstance(channel, CollectingChannel):
                channel.flush()

    def _detach(self, _loop: Any) -> None:
        self._leave()
        self._flush()

    def _leave(self) -> None:
        # From now on each acknowledgement is written at once.
        self.turns = False
        if self._loop is not None:
            self._loop.on_tick.discard(self._tick)
            self._loop.on_close.discard(self._detach)
            self._loop = None


class JobTransport(pyamqp.Transport):  # type: ignore[misc]
    """kombu's transport for RabbitMQ with connections of this kind."""

    Connection = JobConnection

    def register_with_event_loop(self, connection: JobConnection, loop: Any) -> None:
        """Read when there is something to read, and flush acknowledgements in the loop's turns."""
        super().register_with_event_loop(connection, loop)
        connection.attach(loop)

    def on_readable(self, connection: JobConnection, loop: Any) -> None:
        """Deal with all that has come."""
        if not connection.connected:
            raise RecoverableConnectionError("Socket was disconnected")
        connection.read()
