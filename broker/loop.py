"""A thread that owns one connection: it reads, writes, keeps time and reconnects.

py-amqp's connections belong to one thread. `ConnectionLoop` is that thread; others hand it work
with `soon`. It never waits for RabbitMQ: what must wait (connecting, opening a channel) is done
by a thread of its own meanwhile, so that deadlines end on time whoever is silent.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from broker.connection import CONNECT_TIMEOUT_S, HEARTBEAT_S, Address, connect
from broker.errors import BrokerUnavailable, Unreachable
from broker.wire import Confirm, Wire, patient

if TYPE_CHECKING:
    import kombu

logger = logging.getLogger("rabbitry.connection")
# A program that does not set up logging is not to be spoken to on its stderr.
logging.getLogger("rabbitry").addHandler(logging.NullHandler())

RECONNECT_FIRST_S = 0.1
RECONNECT_MOST_S = 5.0
HEARTBEAT_TICK_S = 1.0
CLOSE_TIMEOUT_S = 1.0


class Owner(Protocol):
    """Who uses the connection; every method but `open_channel` runs in the loop's thread."""

    def open_channel(self, connection: Any, *, again: bool) -> None:
        """Open the channel on py-amqp's connection; may wait, and raise what py-amqp raises."""

    def connected(self, wire: Wire) -> None:
        """Use the channel that was opened."""

    def lost(self, error: BrokerUnavailable) -> None:
        """Forget the old connection, or learn that a new one could not be made."""

    def channel_closed(self, code: int, text: str) -> None:
        """Deal with the closing of the channel; it is opened again afterwards."""

    def confirmed(self, confirms: list[Confirm]) -> None:
        """Settle what RabbitMQ has confirmed."""

    def blocked(self, reason: str | None) -> None:
        """Stop publishing, or go on where the reason is None (memory and disk alarms)."""

    def pump(self) -> None:
        """Go on publishing: the connection takes bytes again."""


class ConnectionLoop:
    """One connection, kept alive by one thread until `close`.

    Args:
        address: where to connect.
        owner: is told of connections.
        name: of the thread, for logs and debuggers.
    """

    def __init__(self, address: Address, owner: Owner, *, name: str) -> None:
        self.address = address
        self._owner = owner
        self.confirmed = owner.confirmed
        self._connection: Any = None  # a kombu.Connection
        self._wire: Wire | None = None
        self._work: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._state = threading.Condition()
        self._error: BrokerUnavailable | None = None
        self._opening = False
        self._closing = False
        self._ended = False
        self._asleep = False
        self._retry_at = 0.0
        self._retry_s = RECONNECT_FIRST_S
        self._next_tick = 0.0
        self._wake_in, self._wake_out = socket.socketpair()
        for end in (self._wake_in, self._wake_out):
            end.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._wake_out, select.POLLIN)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # -- for other threads --------------------------------------------------------------

    def soon(self, work: Callable[[], None]) -> None:
        """Run something in the loop's thread as soon as it can."""
        self._work.append(work)
        # A loop that is awake looks for work before it sleeps; a system call would make the
        # caller wait for the interpreter's lock.
        if self._asleep:
            self.wake()

    def wake(self) -> None:
        """Make the loop look for work now."""
        self._asleep = False
        try:
            self._wake_in.send(b"\0")
        except OSError:
            return  # a full pipe wakes it all the same; a closed one has nobody to wake

    def wait_connected(self, *, timeout_s: float) -> None:
        """Wait until there is a connection.

        Raises:
            BrokerUnavailable: the first attempt failed, or nothing came of it in time.
        """
        with self._state:
            self._state.wait_for(
                lambda: self._wire is not None or self._error is not None, timeout_s
            )
            if self._wire is not None:
                return
            raise self._error or Unreachable(
                f"cannot reach RabbitMQ at {self.address.host}:{self.address.port}"
                f" (no answer in {timeout_s:g} s)"
            )

    @property
    def in_loop(self) -> bool:
        """Whether the caller is the loop's own thread."""
        return threading.current_thread() is self._thread

    def close(self, *, timeout_s: float = 5.0) -> None:
        """Close the connection and end the thread."""
        self._closing = True
        self.wake()
        if not self.in_loop:
            self._thread.join(timeout_s)

    def abandon(self) -> None:
        """Drop what a fork has copied: close our copies, and say nothing to RabbitMQ."""
        for end in (self._wake_in, self._wake_out):
            end.close()
        connection, self._connection, self._wire = self._connection, None, None
        if connection is not None and connection._connection is not None:
            transport = connection._connection._transport
            if transport is not None and transport.sock is not None:
                # Only this process's descriptor; no shutdown, which would end the parent's too.
                transport.sock.close()
                transport.sock = None

    # -- for the owner, in the loop's thread --------------------------------------------

    def call_at(self, when: float, work: Callable[[], None]) -> None:
        """Run something at a time of `time.monotonic`."""
        heapq.heappush(self._timers, (when, next(self._order), work))

    # -- the thread ---------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing:
                self._connect_if_due()
                self._wait()
                self._run_work()
                self._run_timers()
        finally:
            with self._state:
                self._ended = True
            self._run_work()  # a connection that came too late is among it, and is closed
            self._close_connection(orderly=True)
            self._wake_in.close()
            self._wake_out.close()

    def _run_work(self) -> None:
        for _ in range(len(self._work)):
            self._guard(self._work.popleft())

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, _, work = heapq.heappop(self._timers)
            self._guard(work)
        if self._wire is not None and now >= self._next_tick:
            self._next_tick = now + HEARTBEAT_TICK_S
            # A connection that has lasted so long may be made again at once.
            self._retry_s = RECONNECT_FIRST_S
            self._guard(self._connection.heartbeat_check)

    def _guard(self, work: Callable[[], None]) -> None:
        """Run work; what the socket or py-amqp raises within it is an event of the connection."""
        from amqp.exceptions import AMQPError

        try:
            work()
        except (OSError, AMQPError) as exc:
            self._lose(exc)
        # A fault of our own must end what is waiting, not the thread that everybody waits for.
        except Exception as exc:
            logger.exception("the connection's thread met an error of its own")
            self._lose(exc)

    def _wait(self) -> None:
        wire = self._wire
        now = time.monotonic()
        until = now + 3600.0
        if self._timers:
            until = min(until, self._timers[0][0])
        if wire is not None:
            until = min(until, self._next_tick)
            interest = select.POLLIN | (select.POLLOUT if wire.unwritten else 0)
            self._poll.modify(wire.sock, interest)
        elif not self._opening:
            until = min(until, self._retry_at)
        self._asleep = True
        buffered = wire is not None and wire.has_buffered
        if self._work or self._closing or buffered:
            until = now
        events = self._poll.poll(max(0.0, until - now) * 1000)
        self._asleep = False
        for descriptor, event in events:
            if descriptor == self._wake_out.fileno():
                self._wake_out.recv(4096)
            elif wire is not None and wire is self._wire:
                if event & select.POLLOUT:
                    self._guard(self._go_on_writing)
                if event & ~select.POLLOUT and wire is self._wire:
                    self._guard(wire.read)
        if buffered and wire is not None and wire is self._wire:
            self._guard(wire.read)

    def _go_on_writing(self) -> None:
        assert self._wire is not None
        self._wire.flush()
        if not self._wire.unwritten:
            self._owner.pump()

    # -- connecting ---------------------------------------------------------------------

    def _connect_if_due(self) -> None:
        if self._connection is not None or self._opening or time.monotonic() < self._retry_at:
            return
        self._in_thread_of_its_own(self._connect)

    def _in_thread_of_its_own(self, work: Callable[[], None]) -> None:
        self._opening = True
        threading.Thread(target=work, name=f"{self._thread.name}-connecting", daemon=True).start()

    def _connect(self) -> None:
        from amqp.exceptions import AMQPError

        connection = None
        try:
            connection = connect(self.address, timeout_s=CONNECT_TIMEOUT_S)
            sock = connection.connection.sock
            patient(sock, seconds=2 * HEARTBEAT_S)
            sock.settimeout(CONNECT_TIMEOUT_S)
            self._owner.open_channel(connection.connection, again=False)
        except BrokerUnavailable as exc:
            # The closure outlives the except clause, which deletes its own name.
            error = exc
            if connection is not None:
                connection.collect(socket_timeout=CLOSE_TIMEOUT_S)
            self.soon(lambda: self._connect_failed(error))
        # Whatever it is, a thread that ends without a word would keep the loop waiting for ever.
        except Exception as exc:
            if not isinstance(exc, (OSError, AMQPError)):
                logger.exception("opening a channel met an error of its own")
            worse = self._lost_error(exc)
            if connection is not None:
                connection.collect(socket_timeout=CLOSE_TIMEOUT_S)
            self.soon(lambda: self._connect_failed(worse))
        else:
            with self._state:
                if not self._ended:
                    self.soon(partial(self._use_wire, connection))
                    return
            connection.collect(socket_timeout=CLOSE_TIMEOUT_S)

    def _connect_failed(self, error: BrokerUnavailable) -> None:
        self._opening = False
        self._pause()
        self._tell(error)
        logger.warning("%s; trying again", error)
        self._owner.lost(error)

    def _use_wire(self, connection: kombu.Connection) -> None:
        self._opening = False
        if self._connection is not connection:
            self._connection = connection
        self._wire = Wire(self._connection.connection, self)
        self._poll.register(self._wire.sock, select.POLLIN)
        self._next_tick = time.monotonic() + HEARTBEAT_TICK_S
        self._tell(None)
        self._owner.connected(self._wire)
        # What was read before belongs to this connection too.
        self._wire.read()

    def _tell(self, error: BrokerUnavailable | None) -> None:
        with self._state:
            self._error = error
            self._state.notify_all()

    def _pause(self) -> None:
        self._retry_at = time.monotonic() + self._retry_s
        self._retry_s = min(self._retry_s * 2, RECONNECT_MOST_S)

    # -- what the wire reads --------------------------------------------------------------

    def blocked(self, reason: str | None) -> None:
        """Pass on that RabbitMQ blocks publishing, or no longer does."""
        if reason is None:
            logger.warning("RabbitMQ takes messages again")
        else:
            logger.warning("RabbitMQ blocks publishing: %s", reason)
        self._owner.blocked(reason)

    def channel_closed(self, code: int, text: str) -> None:
        """Open the channel again."""
        logger.warning("RabbitMQ closed the channel: %s %s", code, text)
        wire = self._wire
        assert wire is not None
        self._forget_wire()
        self._owner.channel_closed(code, text)
        wire.stop()
        self._in_thread_of_its_own(partial(self._open_again, wire))

    def _open_again(self, wire: Wire) -> None:
        from amqp.exceptions import AMQPError

        connection = self._connection
        try:
            # RabbitMQ drops what is written to a closed channel, but wants whole frames.
            wire.give_back(timeout_s=CONNECT_TIMEOUT_S)
            self._owner.open_channel(connection.connection, again=True)
        except Exception as exc:
            if not isinstance(exc, (OSError, AMQPError, BrokerUnavailable)):
                logger.exception("opening a channel met an error of its own")
            error = exc
            self.soon(lambda: self._open_again_failed(error))
        else:
            self.soon(partial(self._use_wire, connection))

    def _open_again_failed(self, error: Exception) -> None:
        self._opening = False
        self._lose(error)

    # -- losing ---------------------------------------------------------------------------

    def _forget_wire(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            # Another thread may write; meanwhile its descriptor must not become another socket's.
            wire.halt()
            try:
                self._poll.unregister(wire.sock)
            except (KeyError, ValueError):
                return  # closed under us

    def _lost_error(self, cause: Exception) -> Unreachable:
        error = Unreachable(
            f"the connection to RabbitMQ at {self.address.host}:{self.address.port} was lost:"
            f" {cause or type(cause).__name__}"
        )
        error.__cause__ = cause
        return error

    def _lose(self, cause: Exception) -> None:
        if self._connection is None or self._opening:
            return
        self._close_connection(orderly=False)
        self._pause()
        error = self._lost_error(cause)
        self._tell(error)
        if not self._closing:
            logger.warning("%s; reconnecting", error)
        self._owner.lost(error)

    def _close_connection(self, *, orderly: bool) -> None:
        connection, self._connection = self._connection, None
        wire = self._wire
        self._forget_wire()
        if connection is None:
            return
        from amqp.exceptions import AMQPError

        # A peer that takes no bytes takes no farewell either.
        if orderly and wire is not None and not wire.unwritten:
            try:
                wire.give_back(timeout_s=CLOSE_TIMEOUT_S)
                connection.connection.close()
            except (OSError, AMQPError, AttributeError) as exc:
                logger.debug("while closing the connection: %s", exc)
        connection.collect(socket_timeout=CLOSE_TIMEOUT_S)
