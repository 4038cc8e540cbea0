"""Where replies come in: a queue of the caller's own, or RabbitMQ's direct replies.

Both are opened on each new channel of the caller's connection, by the thread that makes it; all
else happens in the connection's own thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from broker.deliveries import Delivery
from broker.errors import AccessRefused
from broker.reply_queue import ARGUMENTS, new_name

logger = logging.getLogger("rabbitry.call")

# RabbitMQ's pseudo-queue: a reply goes straight to the channel that asked ("Direct Reply-to").
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"
# Replies are acknowledged together: so many, or so large, or so old.
ACK_REPLIES = 64
ACK_BYTES = 2**20
ACK_WAIT_S = 1.0
# RabbitMQ takes the consumer of a connection that has ended away after that has.
LINGER_S = 0.5


class Inbox(Protocol):
    """Where replies come in."""

    # To be replied to; another one may be made by `open`.
    name: str
    # Whether replies to what was sent on a lost connection still come in on the next one.
    outlives_connection: bool

    def open(self, channel: Any) -> bool:
        """Begin to consume; False where replies to what was sent before cannot come any more."""

    def took(self, delivery: Delivery) -> None:
        """Note that a reply has been dealt with."""

    def lost(self) -> None:
        """Forget the channel."""

    def close(self) -> None:
        """Leave nothing behind."""


class DirectReplies:
    """RabbitMQ's direct replies: nothing is declared, and no right needed."""

    name = DIRECT_REPLY_TO
    outlives_connection = False

    def open(self, channel: Any) -> bool:
        """Begin to consume; replies to what another channel has sent are lost."""
        channel.basic_consume(DIRECT_REPLY_TO, no_ack=True, callback=_drop)
        return False

    def took(self, delivery: Delivery) -> None:
        """Do nothing: direct replies are not acknowledged."""

    def lost(self) -> None:
        """Do nothing: the pseudo-queue was the channel's."""

    def close(self) -> None:
        """Do nothing: there is nothing to leave behind."""


class ReplyQueue:
    """A queue of the caller's own, which waits a minute for the next connection.

    A connection that is cut without a word is alive to RabbitMQ until it misses its heartbeats; as
    long it gets the replies. Whoever connects again meanwhile takes another queue for new calls,
    and waits at the former one for the replies to those before.

    Args:
        user: as whom the caller connects, for errors.
        call_at: has something done in the connection's thread, at a time of `time.monotonic`.
    """

    outlives_connection = True

    def __init__(self, user: str, call_at: Callable[[float, Callable[[], None]], None]) -> None:
        self.name = new_name()
        self._former: str | None = None
        self._user = user
        self._call_at = call_at
        self._declared = self._closing = False
        self._channel: Any = None
        self._tag = self._count = self._size_bytes = 0
        self._timer = False

    def open(self, channel: Any) -> bool:
        """Declare the queue unless it is there, and consume it; False where it was not.

        Raises:
            AccessRefused: the user may not.
        """
        from amqp.exceptions import AccessRefused as Refused

        try:
            was_there = self._declare(channel.connection)
        except Refused as exc:
            raise AccessRefused(
                f"RabbitMQ refuses user {self._user!r} a queue for replies: {exc.reply_text};"
                " give the user the role `caller`, or call with Caller(…, one_shot=True)"
            ) from exc
        for name in (self._former, self.name):
            if name is not None:
                channel.basic_consume(name, callback=_drop, on_cancel=self._cancelled)
        self._channel = channel
        self._tag = self._count = self._size_bytes = 0
        return was_there

    def _declare(self, connection: Any) -> bool:
        # An error closes a channel: not the one that publishes.
        channel = connection.channel()
        try:
            if self._former is not None and _consumers(channel, self._former) is None:
                self._former = None
            was_there = False
            if self._declared:
                consumers = _consumers(channel, self.name)
                if consumers == 0:
                    return True
                if consumers is None:
                    logger.warning("the queue for replies was gone: it is declared again")
                else:
                    logger.warning("the queue for replies is still consumed by the connection lost")
                    self._former, self.name = self.name, new_name()
                    was_there = True
            channel.queue_declare(
                self.name, durable=True, auto_delete=False, arguments=dict(ARGUMENTS)
            )
            self._declared = True
            return was_there
        finally:
            channel.close()

    def _cancelled(self, consumer_tag: str) -> None:
        """Connect again where somebody has deleted the queue."""
        from amqp.exceptions import ConsumerCancelled

        if not self._closing:
            raise ConsumerCancelled(consumer_tag, (60, 30))

    def lost(self) -> None:
        """Forget the channel; what was not acknowledged is delivered again."""
        self._channel = None

    def close(self) -> None:
        """Delete the queue, without waiting for it; RabbitMQ would in a minute."""
        self._closing = True
        for name in (self._former, self.name):
            if self._channel is not None and name is not None:
                self._channel.queue_delete(name, nowait=True)

    def took(self, delivery: Delivery) -> None:
        """Acknowledge a reply, together with others."""
        self._tag = delivery.tag
        self._count += 1
        self._size_bytes += len(delivery.body)
        if self._count >= ACK_REPLIES or self._size_bytes >= ACK_BYTES:
            self._ack()
        elif not self._timer:
            self._timer = True
            self._call_at(time.monotonic() + ACK_WAIT_S, self._ack_old)

    def _ack_old(self) -> None:
        self._timer = False
        if self._count:
            self._ack()

    def _ack(self) -> None:
        if self._channel is None:
            return
        self._channel.basic_ack(self._tag, multiple=True)
        self._count = self._size_bytes = 0


def _consumers(channel: Any, queue: str) -> int | None:
    """Return how many consume a queue, after a moment for those that end; None: it is gone."""
    from amqp.exceptions import NotFound

    until = time.monotonic() + LINGER_S
    while True:
        try:
            count = int(channel.queue_declare(queue, passive=True).consumer_count)
        except NotFound:
            return None
        if not count or time.monotonic() >= until:
            return count
        time.sleep(LINGER_S / 20)


def _drop(message: Any) -> None:
    """Take what py-amqp itself reads: while the connection is being closed."""
    logger.info("a reply came too late: the caller is being closed: %s", message.properties)
