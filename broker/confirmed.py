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
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from broker.connection import Address
from broker.errors import (
    AccessRefused,
    BrokerUnavailable,
    InvalidMessage,
    OutcomeUnknown,
    PublishFailed,
    RabbitryError,
    Rejected,
    Unroutable,
    VirtualHostMissing,
)
from broker.loop import ConnectionLoop
from broker.message import Message
from broker.receipt import Outcome, Receipt, Routed

logger = logging.getLogger("rabbitry.publish")

# How far publishing runs ahead of the confirms, in messages.
WINDOW = 1000
PUBLISH_TIMEOUT_S = 30.0


class ConfirmedChannel:
    """Publishes with confirms over a connection of its own; safe to use from several threads.

    Args:
        address: where RabbitMQ is.
        name: of the connection's thread.
        window: how many messages may wait for their confirms at a time.
        on_channel: called in the connection's thread with each new channel, before anything is
            published on it; the place to start consuming replies.
        on_lost: called in the connection's thread when the connection or channel is lost.
    """

    def __init__(
        self,
        address: Address,
        *,
        name: str = "rabbitry-publisher",
        window: int = WINDOW,
        on_channel: Callable[[Any], None] | None = None,
        on_lost: Callable[[RabbitryError], None] | None = None,
    ) -> None:
        if window < 1:
            raise ValueError("the window holds at least one message")
        self.changed = threading.Condition()
        self.blocked_reason: str | None = None
        self._window = window
        self._on_channel = on_channel
        self._on_lost = on_lost
        self._open = 0
        self._waiting: deque[Receipt] = deque()
        self._unconfirmed: dict[int, Receipt] = {}
        self._returned: dict[str, list[tuple[int, str]]] = {}
        self._channel: Any = None
        self._connection: Any = None
        self._tag = 0
        self._sweep_at = float("inf")
        self._closed = False
        self._trouble = "no connection yet"
        self.loop = ConnectionLoop(address, self, name=name)

    # -- for other threads --------------------------------------------------------------

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
        """
        deadline = time.monotonic() + timeout_s
        content = _amqp_message(message)
        receipt = Receipt(
            self, message.id, content, exchange=exchange, routing_key=routing_key, deadline=deadline
        )
        with self.changed:
            room = self.changed.wait_for(
                lambda: self._open < self._window or self._closed or self.loop.in_loop,
                max(0.0, timeout_s),
            )
            if self._closed or not room:
                reason = "the publisher is closed" if self._closed else self._why_waiting()
                receipt._outcome = self._unknown(receipt, reason)
                return receipt
            self._open += 1
            self._waiting.append(receipt)
            first = len(self._waiting) == 1
            sooner = deadline < self._sweep_at
            if sooner:
                self._sweep_at = deadline
        if sooner:
            self.loop.soon(lambda: self.loop.call_at(deadline, self._sweep))
        if first:
            self.loop.soon(self._pump)
        return receipt

    def wait_for(self, receipt: Receipt, timeout_s: float | None) -> bool:
        """Wait until a receipt is done; False where the time-out came first."""
        if self.loop.in_loop:
            raise RuntimeError("the connection's own thread cannot wait for an outcome")
        with self.changed:
            return self.changed.wait_for(lambda: receipt.done, timeout_s)

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing is under way; False where the time-out came first."""
        with self.changed:
            return self.changed.wait_for(lambda: self._open == 0, timeout_s)

    def unfinished_ids(self) -> set[str]:
        """Return the ids of the messages whose outcome is not known yet."""
        with self.changed:
            pending = [*self._unconfirmed.values(), *self._waiting]
            return {receipt.message_id for receipt in pending if not receipt.done}

    def close(self, *, timeout_s: float | None = None) -> None:
        """Wait for what is under way, then close the connection; what is left ends as unknown."""
        self.flush(timeout_s)
        with self.changed:
            self._closed = True
            self.changed.notify_all()
        self.loop.close()
        for receipt in [*self._unconfirmed.values(), *self._waiting]:
            self._end(receipt, self._unknown(receipt, "the publisher was closed"))

    # -- events of the connection, in its thread ------------------------------------------

    def connected(self, connection: Any) -> None:
        """Open a channel with confirms and send again what was not confirmed."""
        self._connection = connection
        self.blocked_reason = None
        self._open_channel()

    def lost(self, error: BrokerUnavailable) -> None:
        """Keep what was not confirmed for the next connection."""
        self._channel = self._connection = None
        self.blocked_reason = None
        self._trouble = str(error)
        self._keep_unconfirmed()
        if isinstance(error, (AccessRefused, VirtualHostMissing)):
            # Waiting does not mend these: tell the publishers now rather than at their deadline.
            with self.changed:
                hopeless, self._waiting = self._waiting, deque()
            for receipt in hopeless:
                self._end(receipt, self._unknown(receipt, str(error)), cause=error)
        if self._on_lost is not None:
            self._on_lost(error)

    def channel_closed(self, error: Exception) -> None:
        """End the message that RabbitMQ closed the channel for; send the others again."""
        code = int(getattr(error, "reply_code", 0) or getattr(error, "code", 0) or 0)
        text = str(getattr(error, "reply_text", None) or error)
        culprit = self._culprit(text)
        logger.warning("RabbitMQ closed the channel: %s %s", code, text)
        if culprit is not None:
            where = {
                "message_id": culprit.message_id,
                "exchange": culprit.exchange,
                "routing_key": culprit.routing_key,
            }
            if code == 404:
                self._end(culprit, Unroutable(reply_code=code, reply_text=text, **where))
            else:
                self._end(culprit, Rejected(reason=f"{code} {text}", **where))
        self._keep_unconfirmed()
        if self._on_lost is not None:
            self._on_lost(RabbitryError(f"RabbitMQ closed the channel: {code} {text}"))
        self._open_channel()

    def blocked(self, reason: str | None) -> None:
        """Stop writing while an alarm is on."""
        self.blocked_reason = reason
        if reason is None:
            self._pump()

    # -- publishing, in the connection's thread -------------------------------------------

    def _open_channel(self) -> None:
        channel = self._connection.channel()
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)
        self._tag = 0
        self._channel = channel
        if self._on_channel is not None:
            self._on_channel(channel)
        self._pump()

    def _pump(self) -> None:
        """Write what waits, as far as the connection takes it."""
        while self._channel is not None and self.blocked_reason is None:
            with self.changed:
                if not self._waiting:
                    return
                receipt = self._waiting.popleft()
            content = receipt.content
            if content is None:
                continue  # ended at its deadline while it waited
            self._tag += 1
            self._unconfirmed[self._tag] = receipt
            receipt.redelivered = receipt.sent
            receipt.sent = True
            self._channel.basic_publish(
                content,
                exchange=receipt.exchange,
                routing_key=receipt.routing_key,
                mandatory=True,
            )

    def _on_ack(self, delivery_tag: int, multiple: bool) -> None:
        for receipt in self._settled(delivery_tag, multiple):
            returns = self._returned.get(receipt.message_id)
            if returns:
                code, text = returns.pop()
                if not returns:
                    del self._returned[receipt.message_id]
                self._end(
                    receipt,
                    Unroutable(
                        message_id=receipt.message_id,
                        exchange=receipt.exchange,
                        routing_key=receipt.routing_key,
                        reply_code=code,
                        reply_text=text,
                    ),
                )
            else:
                self._end(
                    receipt, Routed(receipt.message_id, receipt.exchange, receipt.routing_key)
                )

    def _on_nack(self, delivery_tag: int, multiple: bool) -> None:
        for receipt in self._settled(delivery_tag, multiple):
            self._end(
                receipt,
                Rejected(
                    message_id=receipt.message_id,
                    exchange=receipt.exchange,
                    routing_key=receipt.routing_key,
                ),
            )

    def _on_return(self, error: Any, exchange: str, routing_key: str, message: Any) -> None:
        # The return comes before the ack of the same message, on the same channel.
        message_id = message.properties.get("message_id")
        code, text = int(error.reply_code or 312), str(error.reply_text)
        self._returned.setdefault(message_id, []).append((code, text))

    def _settled(self, delivery_tag: int, multiple: bool) -> list[Receipt]:
        if not multiple:
            receipt = self._unconfirmed.pop(delivery_tag, None)
            return [] if receipt is None else [receipt]
        # Tags are in order: a dict keeps the order in which it was filled.
        tags = []
        for tag in self._unconfirmed:
            if tag > delivery_tag:
                break
            tags.append(tag)
        return [self._unconfirmed.pop(tag) for tag in tags]

    def _keep_unconfirmed(self) -> None:
        with self.changed:
            again = [receipt for receipt in self._unconfirmed.values() if not receipt.done]
            self._unconfirmed.clear()
            self._returned.clear()
            self._waiting.extendleft(reversed(again))

    def _culprit(self, text: str) -> Receipt | None:
        """Find the message that a channel error speaks of.

        RabbitMQ names the exchange where it is missing or closed to the user, and the size where
        it is too large; of other errors the oldest unconfirmed message is the cause.
        """
        pending = [receipt for receipt in self._unconfirmed.values() if not receipt.done]
        size = re.search(r"message size (\d+)", text)
        for receipt in pending:
            if f"exchange '{receipt.exchange}'" in text:
                return receipt
            if size and len(receipt.content.body) == int(size[1]):
                return receipt
        return pending[0] if pending else None

    # -- endings --------------------------------------------------------------------------

    def _end(
        self, receipt: Receipt, outcome: Outcome, *, cause: BaseException | None = None
    ) -> None:
        if isinstance(outcome, PublishFailed) and cause is not None:
            outcome.__cause__ = cause
        with self.changed:
            if receipt.done:
                return
            receipt._outcome = outcome
            receipt.content = None  # the body may be large; nobody needs it any more
            callbacks, receipt._callbacks = receipt._callbacks, None
            self._open -= 1
            self.changed.notify_all()
        for callback in callbacks or ():
            try:
                callback(receipt)
            except Exception:
                logger.exception("a callback of message %s failed", receipt.message_id)

    def _sweep(self) -> None:
        """End what is past its deadline, and come back at the next one."""
        now = time.monotonic()
        with self.changed:
            pending = [*self._unconfirmed.values(), *self._waiting]
            pending = [receipt for receipt in pending if not receipt.done]
            later = [receipt.deadline for receipt in pending if receipt.deadline > now]
            self._sweep_at = min(later, default=float("inf"))
        if later:
            self.loop.call_at(self._sweep_at, self._sweep)
        for receipt in pending:
            if receipt.deadline <= now:
                self._end(receipt, self._unknown(receipt, self._why_waiting()))

    def _why_waiting(self) -> str:
        if self.blocked_reason is not None:
            return f"RabbitMQ blocks publishing: {self.blocked_reason}"
        if self._channel is None:
            return self._trouble
        return "no confirm by the deadline"

    @staticmethod
    def _unknown(receipt: Receipt, reason: str) -> OutcomeUnknown:
        return OutcomeUnknown(
            message_id=receipt.message_id,
            exchange=receipt.exchange,
            routing_key=receipt.routing_key,
            sent=receipt.sent,
            reason=reason,
        )


def _amqp_message(message: Message) -> Any:
    """Make py-amqp's message, and let it find out here whether it can be written."""
    import amqp

    try:
        content = amqp.Message(
            message.body.content,
            content_type=message.body.content_type,
            content_encoding=message.body.content_encoding,
            application_headers=dict(message.headers),
            **message.properties,
        )
        content._serialize_properties()
    # py-amqp raises what struct, str and its own tables raise.
    except Exception as exc:
        raise InvalidMessage(
            f"a header or property of message {message.id} cannot be sent: {exc}"
        ) from exc
    return content
