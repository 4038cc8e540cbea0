"""A thread that owns one connection: it reads, keeps time, sends heartbeats and reconnects.

py-amqp's connections belong to one thread. `ConnectionLoop` is that thread; others hand it work
with `soon` and `call_at`. Who uses it is told when a connection is made and when it is lost.
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

from broker.connection import CONNECT_TIMEOUT_S, Address, connect
from broker.errors import BrokerUnavailable, Unreachable

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
    """Who uses the connection; every method runs in the loop's thread."""

    def connected(self, connection: kombu.Connection) -> None:
        """Open channels on the new connection; may raise what py-amqp raises."""

    def lost(self, error: BrokerUnavailable) -> None:
        """Forget the old connection, or learn that a new one could not be made."""

    def channel_closed(self, error: Exception) -> None:
        """Deal with a channel that RabbitMQ closed; the connection goes on."""

    def blocked(self, reason: str | None) -> None:
        """Stop publishing, or go on where the reason is None (memory and disk alarms)."""


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
        self._connection: Any = None  # a kombu.Connection
        self._work: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._state = threading.Condition()
        self._error: BrokerUnavailable | None = None
        self._connecting = False
        self._closing = False
        self._ended = False
        self._retry_at = 0.0
        self._retry_s = RECONNECT_FIRST_S
        self._next_tick = 0.0
        self._connected_at = 0.0
        self._wake_in, self._wake_out = socket.socketpair()
        for end in (self._wake_in, self._wake_out):
            end.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # -- for other threads --------------------------------------------------------------

    def soon(self, work: Callable[[], None]) -> None:
        """Run something in the loop's thread as soon as it can."""
        self._work.append(work)
        self.wake()

    def wake(self) -> None:
        """Make the loop look for work now."""
        try:
            self._wake_in.send(b"\0")
        except (BlockingIOError, OSError):
            return  # a full pipe wakes it all the same; a closed one has nobody to wake

    def wait_connected(self, *, timeout_s: float) -> None:
        """Wait until there is a connection.

        Raises:
            BrokerUnavailable: the first attempt failed, or nothing came of it in time.
        """
        with self._state:
            self._state.wait_for(
                lambda: self._connection is not None or self._error is not None, timeout_s
            )
            if self._connection is not None:
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

    # -- for the owner, in the loop's thread --------------------------------------------

    def call_at(self, when: float, work: Callable[[], None]) -> None:
        """Run something at a time of `time.monotonic`."""
        heapq.heappush(self._timers, (when, next(self._order), work))

    def reset(self, error: Exception) -> None:
        """Give the connection up and make a new one."""
        self._lose(error)

    # -- the thread ---------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing:
                self._connect_if_due()
                self._wait()
                self._run_work()
                self._run_timers()
                if self._connection is not None:
                    self._guard(partial(self._serve, self._connection))
        finally:
            with self._state:
                self._ended = True
            self._run_work()  # a connection that came too late is among it, and is closed
            self._close_connection(orderly=True)
            self._wake_in.close()
            self._wake_out.close()

    def _run_work(self) -> None:
        for _ in range(len(self._work)):
            work = self._work.popleft()
            self._guard(work)

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, _, work = heapq.heappop(self._timers)
            self._guard(work)

    def _guard(self, work: Callable[[], None]) -> None:
        """Run work; what py-amqp raises within it is an event of the connection."""
        from amqp.exceptions import AMQPError, ChannelError, ConnectionError

        try:
            work()
        except ChannelError as exc:
            try:
                self._owner.channel_closed(exc)
            except (OSError, AMQPError) as worse:
                self._lose(worse)
        except (OSError, ConnectionError, AMQPError) as exc:
            self._lose(exc)
        # A fault of our own must end what is waiting, not the thread that everybody waits for.
        except Exception as exc:
            logger.exception("the connection's thread met an error of its own")
            self._lose(exc)

    def _wait(self) -> None:
        now = time.monotonic()
        until = now + 3600.0
        if self._timers:
            until = min(until, self._timers[0][0])
        readers: list[Any] = [self._wake_out]
        if self._connection is not None:
            until = min(until, self._next_tick)
            readers.append(self._connection.connection.sock)
        elif not self._connecting:
            until = min(until, self._retry_at)
        if self._work or self._has_buffered():
            until = now
        try:
            ready, _, _ = select.select(readers, [], [], max(0.0, until - now))
        except (OSError, ValueError) as exc:
            # The socket was closed under us.
            self._lose(exc if isinstance(exc, OSError) else OSError("the socket is closed"))
            return
        if self._wake_out in ready:
            try:
                while self._wake_out.recv(4096):
                    pass
            except BlockingIOError:
                return

    def _has_buffered(self) -> bool:
        """Whether bytes were read from the socket that no frame was made of yet."""
        if self._connection is None:
            return False
        sock: Any = self._connection.connection.sock
        pending = getattr(sock, "pending", None)
        return bool(pending and pending())

    def _serve(self, connection: Any) -> None:
        # A TLS socket without a time-out spins in py-amqp until a whole frame is there.
        patience_s = 0.001 if self.address.tls is not None else 0.0
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + HEARTBEAT_TICK_S
            connection.heartbeat_check()
        sock = connection.connection.sock
        while self._connection is connection:
            ready, _, _ = select.select([sock], [], [], 0)
            if not ready and not self._has_buffered():
                return
            try:
                connection.drain_events(timeout=patience_s)
            except TimeoutError:
                return

    # -- connecting ---------------------------------------------------------------------

    def _connect_if_due(self) -> None:
        if self._connection is not None or self._connecting or time.monotonic() < self._retry_at:
            return
        self._connecting = True
        # In a thread of its own, so that deadlines end on time while nobody answers.
        threading.Thread(
            target=self._connect, name=f"{self._thread.name}-connecting", daemon=True
        ).start()

    def _connect(self) -> None:
        try:
            connection = connect(self.address, timeout_s=CONNECT_TIMEOUT_S)
        except BrokerUnavailable as exc:
            # The closure outlives the except clause, which deletes its own name.
            error = exc
            self.soon(lambda: self._connect_failed(error))
        else:
            with self._state:
                if not self._ended:
                    self.soon(lambda: self._connect_done(connection))
                    return
            connection.release()

    def _connect_failed(self, error: BrokerUnavailable) -> None:
        self._connecting = False
        self._pause(time.monotonic())
        with self._state:
            self._error = error
            self._state.notify_all()
        logger.warning("%s; trying again", error)
        self._owner.lost(error)

    def _connect_done(self, connection: kombu.Connection) -> None:
        self._connecting = False
        if self._closing:
            connection.release()
            return
        self._connection = connection
        connection.connection.on_blocked = self._on_blocked
        connection.connection.on_unblocked = lambda: self._owner.blocked(None)
        self._connected_at = time.monotonic()
        self._owner.connected(connection)
        self._next_tick = time.monotonic() + HEARTBEAT_TICK_S
        with self._state:
            self._error = None
            self._state.notify_all()

    def _pause(self, now: float) -> None:
        self._retry_at = now + self._retry_s
        self._retry_s = min(self._retry_s * 2, RECONNECT_MOST_S)

    def _on_blocked(self, reason: str) -> None:
        logger.warning("RabbitMQ blocks publishing: %s", reason)
        self._owner.blocked(reason)

    def _lose(self, cause: Exception) -> None:
        if self._connection is None:
            return
        self._close_connection(orderly=False)
        now = time.monotonic()
        if now - self._connected_at > RECONNECT_MOST_S:
            self._retry_s, self._retry_at = RECONNECT_FIRST_S, now
        else:
            # A connection that does not last must not be made again without a pause.
            self._pause(now)
        error = Unreachable(
            f"the connection to RabbitMQ at {self.address.host}:{self.address.port} was lost:"
            f" {cause or type(cause).__name__}"
        )
        error.__cause__ = cause
        with self._state:
            self._error = error
            self._state.notify_all()
        if not self._closing:
            logger.warning("%s; reconnecting", error)
        self._owner.lost(error)

    def _close_connection(self, *, orderly: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        from amqp.exceptions import AMQPError

        if orderly:
            try:
                connection.connection.sock.settimeout(CLOSE_TIMEOUT_S)
                connection.release()
                return
            except (OSError, AMQPError, AttributeError) as exc:
                logger.debug("while closing the connection: %s", exc)
        connection.collect(socket_timeout=CLOSE_TIMEOUT_S)
