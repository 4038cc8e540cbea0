"""The confirmed channel: messages, delivery tags, returns and deadlines.

Everything that rabbitry publishes goes through here: jobs, and later case files, replays and
schedules. Each message is persistent, mandatory and confirmed, and gets a `Receipt` that ends in
exactly one of four ways: `Routed`, or one of the errors `Unroutable`, `Rejected`,
`OutcomeUnknown`.

Publishing runs ahead of the confirms by at most a window of messages. What was not confirmed when
a connection was lost is sent again on the next one, in order and with the same message id, until
its deadline.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from broker.connection import Address
from broker.culprit import Strikes, refusal_of
from broker.errors import (
    AccessRefused,
    BrokerUnavailable,
    MessageTooLarge,
    OutcomeUnknown,
    RabbitryError,
    Rejected,
    Unroutable,
    VirtualHostMissing,
)
from broker.frames import CHANNEL, Content, body_bytes, content_of, wire_bytes
from broker.loop import ConnectionLoop
from broker.message import Message
from broker.receipt import ROUTED, Outcome, Receipt
from broker.wire import Confirm, Wire

logger = logging.getLogger("rabbitry.publish")

# How far publishing runs ahead of the confirms, in messages; found by measurement, see
# docs/why/performance.md.
WINDOW = 2000
PUBLISH_TIMEOUT_S = 30.0
# RabbitMQ's default of max_message_size.
MAX_MESSAGE_BYTES = 16 * 2**20
# How much is joined into one write.
WRITE_MESSAGES = 256
WRITE_BYTES = 128 * 2**10
# A thread that waits for room in the window is woken when half of it is free; rather than for
# each confirm: changing threads costs more than publishing. Where a few slow messages keep the
# window full, it looks by itself this often.
ROOM_LOOK_S = 0.01


class Observer(Protocol):
    """Who counts; every method runs in the connection's thread and must be quick."""

    def ended(self, outcome: str, latencies_s: Sequence[float]) -> None:
        """Count messages that ended alike: ``routed``, ``unroutable``, ``rejected``, ``unknown``.

        Args:
            outcome: how they ended.
            latencies_s: of each, the seconds since it was handed over.
        """

    def blocked(self, seconds: float) -> None:
        """Count the seconds of an alarm that has just ended."""

    def reconnected(self) -> None:
        """Count a connection that replaces one that was lost."""


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
        self._on_lost = on_lost
        self._why_rejected = why_rejected
        self._observer = observer
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        """Make everything that a fork must not share."""
        self._pid = os.getpid()
        self._born = time.monotonic()
        self._lock = threading.Lock()
        self.changed = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self.blocked_reason: str | None = None
        self._blocked_at = 0.0
        self._open = 0
        self._waiting: deque[Receipt] = deque()
        self._unconfirmed: dict[int, Receipt] = {}
        self._returned: dict[tuple[str, str, str], deque[tuple[int, str]]] = {}
        self._strikes = Strikes()
        self._channel: Any = None
        self._wire: Wire | None = None
        self._pumping = False
        self._tag = 0
        self._oldest = 1
        self._connections = self._used_connections = 0
        self._sweep_at = float("inf")
        self._trouble = "no connection yet"
        self._loop = ConnectionLoop(self._address, self, name=self._name)

    # -- for other threads --------------------------------------------------------------

    @property
    def loop(self) -> ConnectionLoop:
        """The thread of the connection."""
        self._be_here()
        return self._loop

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
    ) -> Receipt:
        """Hand over a message that is in frames already; see `publish`.

        Args:
            content: its frames, to the exchange and routing key that are given beside it.
            message_id: its id.
            exchange, routing_key: where it goes.
            timeout_s: seconds until the outcome must be known, connecting included.

        Raises:
            MessageTooLarge: RabbitMQ would not take it; nothing was sent.
        """
        if len(content) > self.max_message_bytes and body_bytes(content) > self.max_message_bytes:
            size_bytes = body_bytes(content)
            raise MessageTooLarge(size_bytes=size_bytes, limit_bytes=self.max_message_bytes)
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
        with self._lock:
            if (self._open >= self._window or self._closed) and not self._wait_for_room(deadline):
                reason = "the publisher is closed" if self._closed else self._why_waiting()
                receipt.content = None
                receipt._outcome = self._unknown(receipt, reason)
                return receipt
            self._open += 1
            self._waiting.append(receipt)
            pumping, self._pumping = self._pumping, True
            sooner = deadline < self._sweep_at
            if sooner:
                self._sweep_at = deadline
        if sooner:
            self._loop.soon(lambda: self._loop.call_at(deadline, self._sweep))
        if not pumping:
            self._loop.soon(self._pump)
        return receipt

    def _wait_for_room(self, deadline: float) -> bool:
        """Wait until the window has room; holds the lock. False where it stays full, or closes."""
        if self._closed:
            return False
        if self._loop.in_loop:
            return True  # who publishes from a callback cannot wait for the thread that it is in
        while self._open >= self._window and not self._closed:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            self._room.wait_for(
                lambda: self._open <= self._window // 2 or self._closed, min(left_s, ROOM_LOOK_S)
            )
        return not self._closed

    def wait_for(self, receipt: Receipt, timeout_s: float | None) -> bool:
        """Wait until a receipt is done; False where the time-out came first."""
        self._be_here(receipt)
        if self._loop.in_loop:
            raise RuntimeError("the connection's own thread cannot wait for an outcome")
        with self.changed:
            return self.changed.wait_for(lambda: receipt.done, timeout_s)

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing is under way; False where the time-out came first."""
        self._be_here()
        with self.changed:
            return self.changed.wait_for(lambda: self._open == 0, timeout_s)

    def unfinished_ids(self) -> set[str]:
        """Return the ids of the messages whose outcome is not known yet."""
        with self._lock:
            pending = [*self._unconfirmed.values(), *self._waiting]
            return {receipt.message_id for receipt in pending if not receipt.done}

    def close(self, *, timeout_s: float | None = None) -> None:
        """Wait for what is under way, then close the connection; what is left ends as unknown."""
        if self._pid != os.getpid() and not self._closed:
            # Forked and never used here: nothing is under way, and the connection is the parent's.
            self._closed = True
            self._loop.abandon()
            for receipt in (*self._unconfirmed.values(), *self._waiting):
                self._leave_to_parent(receipt)
            return
        self.flush(timeout_s)
        with self._lock:
            self._closed = True
            self._room.notify_all()
        self._loop.close()
        left = [*self._unconfirmed.values(), *self._waiting]
        reason = "the publisher was closed"
        self._end_each([(receipt, self._unknown(receipt, reason)) for receipt in left])

    def _be_here(self, receipt: Receipt | None = None) -> None:
        """After a fork, begin anew: thread, locks and socket are the parent's."""
        if self._pid != os.getpid():
            self._loop.abandon()
            theirs = [*self._unconfirmed.values(), *self._waiting]
            self._begin()
            for each in theirs:
                self._leave_to_parent(each)
        if receipt is not None and receipt.started < self._born:
            self._leave_to_parent(receipt)

    def _leave_to_parent(self, receipt: Receipt) -> None:
        if receipt._outcome is None:
            receipt.content = None
            receipt._outcome = self._unknown(
                receipt, "the process was forked; its parent learns the outcome"
            )

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
        channel.events["basic_return"].add(self._on_return)
        if self._on_channel is not None:
            self._on_channel(channel)
        self._channel = channel

    def connected(self, wire: Wire) -> None:
        """Send again what was not confirmed, and go on."""
        if self._connections > max(1, self._used_connections) and self._observer is not None:
            self._observer.reconnected()
        self._used_connections = self._connections
        self._tag, self._oldest = 0, 1
        self._wire = wire
        self._pump()

    def lost(self, error: BrokerUnavailable) -> None:
        """Keep what was not confirmed for the next connection."""
        self._note_unwritten()
        self._wire = None
        self._set_blocked(None)
        self._trouble = str(error)
        self._keep_unconfirmed()
        if isinstance(error, (AccessRefused, VirtualHostMissing)):
            # Waiting does not mend these: tell the publishers now rather than at their deadline.
            with self._lock:
                hopeless, self._waiting = self._waiting, deque()
            self._end_each(
                [(receipt, self._unknown(receipt, str(error), cause=error)) for receipt in hopeless]
            )
        if self._on_lost is not None:
            self._on_lost(error)

    def channel_closed(self, code: int, text: str) -> None:
        """End the message that RabbitMQ closed the channel for; send the others again."""
        self._wire = None
        pending = [receipt for receipt in self._unconfirmed.values() if not receipt.done]
        culprits = self._strikes.culprits(pending, text)
        outcomes = [(receipt, refusal_of(receipt, code, text)) for receipt in culprits]
        for _, outcome in outcomes:
            if isinstance(outcome.__cause__, MessageTooLarge):
                self.max_message_bytes = outcome.__cause__.limit_bytes
        self._end_each(outcomes)
        self._keep_unconfirmed()
        if self._on_lost is not None:
            self._on_lost(RabbitryError(f"RabbitMQ closed the channel: {code} {text}"))

    def blocked(self, reason: str | None) -> None:
        """Stop writing while an alarm is on."""
        self._set_blocked(reason)
        if reason is None:
            self._pump()

    def writable(self) -> None:
        """Go on writing."""
        self._pump()

    def _set_blocked(self, reason: str | None) -> None:
        now = time.monotonic()
        if self.blocked_reason is not None and self._observer is not None:
            self._observer.blocked(now - self._blocked_at)
        self.blocked_reason = reason
        self._blocked_at = now

    # -- publishing, in the connection's thread -------------------------------------------

    def _pump(self) -> None:
        """Write what waits, as far as the connection takes it."""
        self._pumping = False
        wire = self._wire
        while wire is not None and self.blocked_reason is None and not wire.unwritten:
            buffers = self._next_buffers(wire.frame_max)
            if not buffers:
                return
            wire.write(*buffers)

    def _next_buffers(self, frame_max: int) -> list[bytes | memoryview]:
        waiting, unconfirmed = self._waiting, self._unconfirmed
        buffers: list[bytes | memoryview] = []
        small: list[bytes] = []
        tag, last, room = self._tag, self._tag + WRITE_MESSAGES, WRITE_BYTES
        while waiting and tag < last and room > 0:
            receipt = waiting.popleft()
            content = receipt.content
            if content is None:
                continue  # ended at its deadline while it waited
            tag += 1
            unconfirmed[tag] = receipt
            if receipt.sent:
                receipt.redelivered = True
            else:
                receipt.sent = True
            room -= len(content)
            if type(content) is bytes:
                small.append(content)
            else:
                buffers += (b"".join(small), *content.buffers(frame_max))
                small.clear()
        self._tag = tag
        if small:
            buffers.append(b"".join(small))
        return buffers

    def confirmed(self, confirms: list[Confirm]) -> None:
        """End what RabbitMQ has acked or nacked."""
        pop = self._unconfirmed.pop
        routed: list[Receipt] = []
        others: list[tuple[Receipt, Outcome]] = []
        for positive, tag, multiple in confirms:
            tags = range(self._oldest, tag + 1) if multiple else range(tag, tag + 1)
            if multiple:
                self._oldest = tag + 1
            settled = [receipt for each in tags if (receipt := pop(each, None)) is not None]
            if not positive:
                others += [(receipt, self._rejected(receipt)) for receipt in settled]
            elif not self._returned:
                routed += settled
            else:
                for receipt in settled:
                    returned = self._take_returned(receipt)
                    if returned is None:
                        routed.append(receipt)
                    else:
                        others.append((receipt, returned))
        self._end_routed(routed)
        if others:
            self._end_each(others)

    def _rejected(self, receipt: Receipt) -> Rejected:
        reason = None
        if self._why_rejected is not None:
            reason = self._why_rejected(receipt.exchange, receipt.routing_key)
        return Rejected(
            message_id=receipt.message_id,
            exchange=receipt.exchange,
            routing_key=receipt.routing_key,
            reason=reason,
        )

    def _on_return(self, error: Any, exchange: str, routing_key: str, message: Any) -> None:
        # The return comes before the ack of the same message, on the same channel.
        key = (message.properties.get("message_id"), exchange, routing_key)
        code, text = int(error.reply_code or 312), str(error.reply_text)
        self._returned.setdefault(key, deque()).append((code, text))

    def _take_returned(self, receipt: Receipt) -> Unroutable | None:
        key = (receipt.message_id, receipt.exchange, receipt.routing_key)
        returns = self._returned.get(key)
        if not returns:
            return None
        code, text = returns.popleft()
        if not returns:
            del self._returned[key]
        return Unroutable(
            message_id=receipt.message_id,
            exchange=receipt.exchange,
            routing_key=receipt.routing_key,
            reply_code=code,
            reply_text=text,
        )

    def _note_unwritten(self) -> None:
        """Take back that messages were sent of which the lost connection took nothing."""
        wire = self._wire
        if wire is None:
            return
        left = wire.unwritten
        for receipt in reversed(self._unconfirmed.values()):
            size = 0 if receipt.content is None else wire_bytes(receipt.content, wire.frame_max)
            if not 0 < size <= left:
                return
            left -= size
            receipt.sent = receipt.redelivered

    def _keep_unconfirmed(self) -> None:
        with self._lock:
            again = [receipt for receipt in self._unconfirmed.values() if not receipt.done]
            self._unconfirmed.clear()
            self._returned.clear()
            self._waiting.extendleft(reversed(again))

    # -- endings --------------------------------------------------------------------------

    def _end_routed(self, receipts: list[Receipt]) -> None:
        """End many at once: one lock and one waking for all."""
        called: list[Receipt] = []
        with self._lock:
            receipts = [receipt for receipt in receipts if receipt._outcome is None]
            for receipt in receipts:
                receipt._outcome = ROUTED
                receipt.content = None  # the body may be large; nobody needs it any more
                if receipt._callbacks is not None:
                    called.append(receipt)
            self._fewer(len(receipts))
        if self._observer is not None and receipts:
            now = time.monotonic()
            self._observer.ended("routed", [now - receipt.started for receipt in receipts])
        for receipt in called:
            self._call_back(receipt)

    def _end_each(self, outcomes: Sequence[tuple[Receipt, Outcome]]) -> None:
        ended: list[tuple[Receipt, Outcome]] = []
        with self._lock:
            for receipt, outcome in outcomes:
                if receipt._outcome is None:
                    receipt._outcome = outcome
                    receipt.content = None
                    ended.append((receipt, outcome))
            self._fewer(len(ended))
        now = time.monotonic()
        for receipt, outcome in ended:
            if self._observer is not None:
                self._observer.ended(_NAMES.get(type(outcome), "unknown"), [now - receipt.started])
            self._call_back(receipt)

    def _fewer(self, count: int) -> None:
        self._open -= count
        self.changed.notify_all()
        if self._open <= self._window // 2:
            self._room.notify_all()

    @staticmethod
    def _call_back(receipt: Receipt) -> None:
        callbacks, receipt._callbacks = receipt._callbacks, None
        for callback in callbacks or ():
            try:
                callback(receipt)
            except Exception:
                logger.exception("a callback of message %s failed", receipt.message_id)

    def _sweep(self) -> None:
        """End what is past its deadline, and come back at the next one."""
        now = time.monotonic()
        with self._lock:
            pending = [*self._unconfirmed.values(), *self._waiting]
            pending = [receipt for receipt in pending if receipt._outcome is None]
            later = [receipt.deadline for receipt in pending if receipt.deadline > now]
            self._sweep_at = min(later, default=float("inf"))
        if later:
            self._loop.call_at(self._sweep_at, self._sweep)
        reason = self._why_waiting()
        late = [receipt for receipt in pending if receipt.deadline <= now]
        self._end_each([(receipt, self._unknown(receipt, reason)) for receipt in late])

    def _why_waiting(self) -> str:
        if self.blocked_reason is not None:
            return f"RabbitMQ blocks publishing: {self.blocked_reason}"
        if self._wire is None:
            return self._trouble
        return "no confirm by the deadline"

    @staticmethod
    def _unknown(
        receipt: Receipt, reason: str, *, cause: BaseException | None = None
    ) -> OutcomeUnknown:
        error = OutcomeUnknown(
            message_id=receipt.message_id,
            exchange=receipt.exchange,
            routing_key=receipt.routing_key,
            sent=receipt.sent,
            reason=reason,
        )
        error.__cause__ = cause
        return error


_NAMES: dict[type[Any], str] = {Unroutable: "unroutable", Rejected: "rejected"}
