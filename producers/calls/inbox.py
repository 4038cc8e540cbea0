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


class Inbox(Protocol):
    """Where replies come in."""

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

    Args:
        user: as whom the caller connects, for errors.
        call_at: has something done in the connection's thread, at a time of `time.monotonic`.
    """

    outlives_connection = True

    def __init__(self, user: str, call_at: Callable[[float, Callable[[], None]], None]) -> None:
        self.name = new_name()
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
        channel.basic_consume(self.name, callback=_drop, on_cancel=self._cancelled)
        self._channel = channel
        self._tag = self._count = self._size_bytes = 0
        return was_there

    def _declare(self, connection: Any) -> bool:
        from amqp.exceptions import NotFound

        # An error closes a channel: not the one that publishes.
        channel = connection.channel()
        try:
            if self._declared:
                try:
                    channel.queue_declare(self.name, passive=True)
                except NotFound:
                    logger.warning("the queue for replies was gone: it is declared again")
                else:
                    return True
            channel.queue_declare(
                self.name, durable=True, auto_delete=False, arguments=dict(ARGUMENTS)
            )
            self._declared = True
            return False
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
        if self._channel is not None:
            self._channel.queue_delete(self.name, nowait=True)

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


def _drop(message: Any) -> None:
    """Take what py-amqp itself reads: while the connection is being closed."""
    logger.info("a reply came too late: the caller is being closed: %s", message.properties)
