"""The confirmed channel: messages, delivery tags, returns and deadlines.

Everything that rabbitry publishes goes through here. Each message is persistent, mandatory and
confirmed, and gets a `Receipt` that ends in exactly one of four ways: `Routed`, or one of the
errors `Unroutable`, `Rejected`, `OutcomeUnknown`.

Publishing runs ahead of the confirms by at most a window, of so many messages and so many bytes.
What was not confirmed when a connection was lost is sent again on the next one, in order and with
the same message id, until its deadline.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from broker.connection import Address
from broker.deliveries import Deliveries, Delivery
from broker.errors import (
    AccessRefused,
    BrokerUnavailable,
    MessageTooLarge,
    RabbitryError,
    VirtualHostMissing,
)
from broker.flight import Flight
from broker.frames import CHANNEL, Content, body_bytes, content_of
from broker.loop import ConnectionLoop
from broker.message import Message
from broker.observer import Observer
from broker.outlet import Outlet
from broker.receipt import Receipt
from broker.window import WINDOW, WINDOW_BYTES, Window
from broker.wire import Confirm, Wire

PUBLISH_TIMEOUT_S = 30.0
# RabbitMQ's default of max_message_size.
MAX_MESSAGE_BYTES = 16 * 2**20
# Of a stream so many messages are written together, or as many as come within this time.
STREAM_MESSAGES = 64
STREAM_WAIT_S = 0.002


class ConfirmedChannel:
    """Publishes with confirms over a connection of its own; safe to use from several threads.

    After a fork the child's has a connection of its own from its first use on; receipts that were
    open are the parent's, and end as unknown in the child.

    Args:
        address: where RabbitMQ is.
        name: of the connection's thread.
        window: how many messages may wait for their confirms at a time.
        on_channel: called with each new channel, before anything is published on it, by the one
            thread that uses the connection then; the place to start consuming replies.
        on_delivery: called in the connection's thread with what is delivered on the channel.
        on_lost: called in the connection's thread when the connection or channel is lost.
        max_message_bytes: the largest body that RabbitMQ takes (its ``max_message_size``).
        why_rejected: says for an exchange and routing key why RabbitMQ may refuse a message.
        observer: counts.

    Attributes:
        blocked_reason: RabbitMQ's reason while an alarm blocks publishing, else None.
        max_message_bytes: as above; lower where RabbitMQ has said so.
    """

    def __init__(
        self,
        address: Address,
        *,
        name: str = "rabbitry-publisher",
        window: int = WINDOW,
        on_channel: Callable[[Any], None] | None = None,
        on_delivery: Callable[[Delivery], None] | None = None,
        on_lost: Callable[[RabbitryError], None] | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        why_rejected: Callable[[str, str], str | None] | None = None,
        observer: Observer | None = None,
    ) -> None:
        if window < 1:
            raise ValueError("the window holds at least one message")
        self.max_message_bytes = max_message_bytes
        self._address = address
        self._name = name
        self._window = window
        self._on_channel = on_channel
        self._on_delivery = on_delivery
        self._on_lost = on_lost
        self._why_rejected = why_rejected
        self._observer = observer
        self._begin()

    def _begin(self) -> None:
        """Make everything that a fork must not share."""
        self._pid = os.getpid()
        self._born = time.monotonic()
        self._under_way = Window(self._window, WINDOW_BYTES, self._observer)
        self._lock = self._under_way.lock
        self.changed = self._under_way.changed
        self.blocked_reason: str | None = None
        self._blocked_at = 0.0
        self._flight = Flight(self._why_rejected)
        self._waiting = self._flight.waiting
        self._channel: Any = None
        self._outlet = Outlet(self._flight)
        self._pumping = self._later = False
        self._connections = self._used_connections = 0
        self._sweep_at = float("inf")
        self._trouble = "no connection yet"
        self._loop = ConnectionLoop(self._address, self, name=self._name)

    # -- for other threads --------------------------------------------------------------

    @property
    def flows(self) -> bool:
        """Whether what is published now is written now: connected, not blocked, nothing kept."""
        self._be_here()
        return self._outlet.flows

    @property
    def loop(self) -> ConnectionLoop:
        """The thread of the connection."""
        self._be_here()
        return self._loop

    @property
    def has_room(self) -> bool:
        """Whether the next `publish` need not wait; another thread may be quicker."""
        return not self._under_way.full

    def publish(
        self,
        message: Message,
        *,
        exchange: str,
        routing_key: str,
        timeout_s: float = PUBLISH_TIMEOUT_S,
    ) -> Receipt:
        """Hand a message to the connection's thread; returns while the window has room.

        Args:
            message: what to publish.
            exchange, routing_key: where to.
            timeout_s: seconds until the outcome must be known, connecting included.

        Raises:
            InvalidMessage: AMQP cannot express a header or property; nothing was sent.
            MessageTooLarge: RabbitMQ would not take it; nothing was sent.
        """
        return self.send(
            content_of(message, exchange=exchange, routing_key=routing_key),
            message_id=message.id,
            exchange=exchange,
            routing_key=routing_key,
            timeout_s=timeout_s,
        )

    def send(
        self,
        content: Content,
        *,
        message_id: str,
        exchange: str,
        routing_key: str,
        timeout_s: float = PUBLISH_TIMEOUT_S,
        stream: bool = False,
    ) -> Receipt:
        """Hand over a message that is in frames already; see `publish`.

        Args:
            content: its frames, to the exchange and routing key that are given beside it.
            message_id, exchange, routing_key, timeout_s: as for `publish`.
            stream: whether more follow, so that it may wait a moment to be written with them.

        Raises:
            MessageTooLarge: RabbitMQ would not take it; nothing was sent.
        """
        if len(content) > self.max_message_bytes and body_bytes(content) > self.max_message_bytes:
            limit_bytes = self.max_message_bytes
            raise MessageTooLarge(size_bytes=body_bytes(content), limit_bytes=limit_bytes)
        if self._pid != os.getpid():
            self._be_here()
        started = time.monotonic()
        deadline = started + timeout_s
        receipt = Receipt(
            self,
            message_id,
            content,
            exchange=exchange,
            routing_key=routing_key,
            deadline=deadline,
            started=started,
        )
        if self._observer is not None:
            self._observer.handed_over()
        under_way = self._under_way
        with self._lock:
            if under_way.full and not self._wait_for_room(deadline):
                reason = "the publisher is closed" if under_way.closed else self._why_waiting()
                receipt.content, receipt._outcome = None, receipt.unknown(reason)
                if self._observer is not None:
                    self._observer.ended("unknown", [time.monotonic() - started])
                return receipt
            under_way.take(receipt)
            alone = under_way.open == 1 and not stream
            self._waiting.append(receipt)
            wake = self.pump
            if stream and len(self._waiting) < STREAM_MESSAGES:
                wake = self._pump_later
                pumping, self._later = self._later, True
            else:
                pumping, self._pumping = self._pumping, True
            sooner = deadline < self._sweep_at
            if sooner:
                self._sweep_at = deadline
        if sooner:
            self._loop.soon(lambda: self._loop.call_at(deadline, self._sweep))
        # What comes alone is not worth waking another thread for.
        if not pumping and not (alone and self._write_here()):
            self._loop.soon(wake)
        return receipt

    def _wait_for_room(self, deadline: float) -> bool:
        # Who publishes from a callback cannot wait for the thread that it is in.
        if self._loop.in_loop:
            return not self._under_way.closed
        self._hurry()
        return self._under_way.wait_for_room(deadline)

    def _hurry(self) -> None:
        """Let nothing wait for company: somebody waits for an outcome."""
        if self._waiting and not self._pumping:
            self._pumping = True
            self._loop.soon(self.pump)

    def wait_for(self, receipt: Receipt, timeout_s: float | None) -> bool:
        """Wait until a receipt is done; False where the time-out came first."""
        self._be_here(receipt)
        if self._loop.in_loop:
            raise RuntimeError("the connection's own thread cannot wait for an outcome")
        self._hurry()
        return self._under_way.wait_until(lambda: receipt.done, timeout_s)

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing is under way; False where the time-out came first."""
        self._be_here()
        self._hurry()
        return self._under_way.wait_until(lambda: self._under_way.open == 0, timeout_s)

    def close(self, *, timeout_s: float | None = None) -> None:
        """Wait for what is under way, then close the connection; what is left ends as unknown."""
        self.flush(timeout_s)
        self._under_way.close()
        self._loop.close()
        left = self._flight.pending()
        reason = "the publisher was closed"
        self._under_way.end_each([(receipt, receipt.unknown(reason)) for receipt in left])

    def _be_here(self, receipt: Receipt | None = None) -> None:
        """After a fork, begin anew: thread, locks and socket are the parent's."""
        if self._pid != os.getpid():
            self._loop.abandon()
            theirs, closed = self._flight.pending(), self._under_way.closed
            self._begin()
            for each in theirs:
                _leave_to_parent(each)
            if closed:
                self._under_way.close()
                self._loop.close()
        if receipt is not None and receipt.started < self._born:
            _leave_to_parent(receipt)

    # -- events of the connection ---------------------------------------------------------

    def open_channel(self, connection: Any, *, again: bool) -> None:
        """Open a channel with confirms; not in the loop's thread, which does not use it then."""
        if again:
            self._channel.send_method((20, 41))  # channel.close-ok
            self._channel.collect()
        else:
            self._connections += 1
        channel = connection.channel(CHANNEL)
        channel.confirm_select()
        channel.events["basic_return"].add(self._flight.returned)
        if self._on_channel is not None:
            self._on_channel(channel)
        self._channel = channel

    def connected(self, wire: Wire) -> None:
        """Send again what was not confirmed, and go on."""
        if self._connections > max(1, self._used_connections) and self._observer is not None:
            self._observer.reconnected()
        self._used_connections = self._connections
        self._outlet.attach(wire)
        if self._on_delivery is not None:
            wire.deliveries = Deliveries(self._on_delivery)
        self.pump()

    def lost(self, error: BrokerUnavailable) -> None:
        """Keep what was not confirmed for the next connection."""
        wire = self._outlet.detach()
        if wire is not None:
            self._flight.note_unwritten(wire.unwritten, wire.frame_max)
        self._set_blocked(None)
        self._trouble = str(error)
        with self._lock:
            self._flight.keep_unconfirmed()
        if isinstance(error, (AccessRefused, VirtualHostMissing)):
            # Waiting does not mend these: tell the publishers now rather than at their deadline.
            with self._lock:
                hopeless = self._flight.pending()
                self._waiting.clear()
            outcomes = [(each, each.unknown(str(error), cause=error)) for each in hopeless]
            self._under_way.end_each(outcomes)
        if self._on_lost is not None:
            self._on_lost(error)

    def channel_closed(self, code: int, text: str) -> None:
        """End the message that RabbitMQ closed the channel for; send the others again."""
        self._outlet.detach()
        outcomes = self._flight.closed(code, text)
        for _, outcome in outcomes:
            if isinstance(outcome.__cause__, MessageTooLarge):
                self.max_message_bytes = outcome.__cause__.limit_bytes
        self._under_way.end_each(outcomes)
        with self._lock:
            self._flight.keep_unconfirmed()
        if self._on_lost is not None:
            self._on_lost(RabbitryError(f"RabbitMQ closed the channel: {code} {text}"))

    def blocked(self, reason: str | None) -> None:
        """Stop writing while an alarm is on."""
        self._set_blocked(reason)
        if reason is None:
            self.pump()

    def _set_blocked(self, reason: str | None) -> None:
        before, self.blocked_reason = self.blocked_reason, reason
        self._outlet.blocked = reason is not None
        if self._observer is None or (before is None) == (reason is None):
            return
        if reason is not None:
            self._blocked_at = time.monotonic()
            self._observer.blocked()
        else:
            self._observer.unblocked(time.monotonic() - self._blocked_at)

    # -- publishing, in the connection's thread -------------------------------------------

    def pump(self) -> None:
        """Write what waits, as far as the connection takes it."""
        self._pumping = self._later = False
        self._outlet.write()

    def _write_here(self) -> bool:
        # Who publishes next asks the loop, unless this thread still finds its message.
        self._pumping = False
        return self._outlet.write_here()

    def _pump_later(self) -> None:
        self._loop.call_at(time.monotonic() + STREAM_WAIT_S, self.pump)

    def confirmed(self, confirms: list[Confirm]) -> None:
        """End what RabbitMQ has acked or nacked."""
        routed, refused = self._flight.settle(confirms)
        self._under_way.end_routed(routed)
        if refused:
            self._under_way.end_each(refused)

    # -- endings --------------------------------------------------------------------------

    def _sweep(self) -> None:
        """End what is past its deadline, and come back at the next one."""
        now = time.monotonic()
        with self._lock:
            pending = self._flight.pending()
            later = [receipt.deadline for receipt in pending if receipt.deadline > now]
            self._sweep_at = min(later, default=float("inf"))
        if later:
            self._loop.call_at(self._sweep_at, self._sweep)
        reason = self._why_waiting()
        late = [receipt for receipt in pending if receipt.deadline <= now]
        self._under_way.end_each([(receipt, receipt.unknown(reason)) for receipt in late])

    def _why_waiting(self) -> str:
        if self.blocked_reason is not None:
            return f"RabbitMQ blocks publishing: {self.blocked_reason}"
        if self._outlet.wire is None:
            return self._trouble
        return "no confirm by the deadline"


def _leave_to_parent(receipt: Receipt) -> None:
    if receipt._outcome is None:
        receipt._outcome = receipt.unknown("the process was forked; its parent learns of it")
