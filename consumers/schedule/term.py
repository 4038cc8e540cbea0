"""One term: a channel that waits for the token, leads while it holds it, and publishes.

Leading and publishing share one channel. RabbitMQ gives the token to the next scheduler only when
this channel is gone, and what is written to a channel that is gone goes nowhere: a leader that was
paused and wakes cannot publish any more. So a term ends with its channel, and the next one begins
with nothing.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from types import TracebackType
from typing import Any
from uuid import uuid4

from broker.body import Body
from broker.confirmed import ConfirmedChannel
from broker.connection import Address
from broker.errors import RabbitryError
from broker.message import PERSISTENT, Message
from broker.receipt import Receipt
from broker.topology.token import STATE_KEY, TOKEN_KEY, Token
from consumers.schedule.marks import State

# A publish whose outcome is not known by then is tried again, with the same id.
PUBLISH_TIMEOUT_S = 30.0


class Delivered:
    """A token."""

    __slots__ = ("content", "message_id", "tag")

    def __init__(self, tag: int, message_id: str, content: bytes) -> None:
        self.tag = tag
        self.message_id = message_id
        self.content = content


class Term:
    """A channel of its own, and what happens on it.

    Args:
        address: where RabbitMQ is.
        token: the names of the token's queue and exchange.
        consumer_tag: who this is.
        wake: called from other threads when something has happened.

    Attributes:
        error: why the term is over, or None.
        opened: whether the channel waits for the token.
    """

    def __init__(
        self, address: Address, token: Token, *, consumer_tag: str, wake: SimpleQueue[None]
    ) -> None:
        self.error: RabbitryError | None = None
        self.opened = False
        self._token = token
        self._consumer_tag = consumer_tag
        self._wake = wake
        self._delivered: SimpleQueue[Delivered] = SimpleQueue()
        self._wire_channel: Any = None
        self._made = threading.Lock()
        self._channel: ConfirmedChannel | None = None
        with self._made:
            self._channel = ConfirmedChannel(
                address,
                name="rabbitry-scheduler",
                on_channel=self._consume,
                on_lost=self._lost,
            )

    # -- in the connection's thread -----------------------------------------------------

    def _consume(self, channel: Any) -> None:
        if self._wire_channel is not None or self.error is not None:
            # What was not confirmed would be sent again, by somebody who no longer leads.
            raise ConnectionAbortedError("the term is over")
        self._wire_channel = channel
        channel.basic_consume(
            self._token.queue, consumer_tag=self._consumer_tag, callback=self._on_delivery
        )
        self.opened = True
        self._wake.put(None)

    def _on_delivery(self, message: Any) -> None:
        content = message.body
        self._delivered.put(
            Delivered(
                message.delivery_tag,
                str(message.properties.get("message_id", "")),
                content if isinstance(content, bytes) else str(content).encode(),
            )
        )
        self._wake.put(None)

    def _lost(self, error: RabbitryError) -> None:
        if self.error is None:
            self.error = error
        self._wake.put(None)
        # The thread may be quicker than the constructor that starts it.
        with self._made:
            channel = self._channel
        if channel is not None:
            channel.loop.close()

    # -- for the scheduler --------------------------------------------------------------

    def delivered(self) -> list[Delivered]:
        """Return the tokens that came since the last call."""
        found = []
        while not self._delivered.empty():
            found.append(self._delivered.get())
        return found

    def publish(self, message: Message, *, exchange: str, routing_key: str) -> Receipt:
        """Publish a message; whoever waits is woken with its outcome.

        Raises:
            InvalidInput: it cannot be sent.
        """
        assert self._channel is not None
        receipt = self._channel.publish(
            message, exchange=exchange, routing_key=routing_key, timeout_s=PUBLISH_TIMEOUT_S
        )
        receipt.add_done_callback(lambda _: self._wake.put(None))
        return receipt

    def offer(self) -> Receipt:
        """Publish a token that says nothing, so that there is one."""
        return self._publish_token(State({}), TOKEN_KEY)

    def write(self, state: State) -> Receipt:
        """Publish the token as it is now, for the next leader and for people."""
        return self._publish_token(state, STATE_KEY)

    def _publish_token(self, state: State, key: str) -> Receipt:
        id = str(uuid4())
        properties = {"delivery_mode": PERSISTENT, "message_id": id, "timestamp": state.written_s}
        body = Body(state.encode(), "application/json", "utf-8")
        message = Message(id, body, {}, properties)
        return self.publish(message, exchange=self._token.exchange, routing_key=key)

    def drop(self, tag: int) -> None:
        """Drop a token and all that came before it."""
        assert self._channel is not None
        self._channel.loop.soon(lambda: self._drop(tag))

    def _drop(self, tag: int) -> None:
        if self.error is None:
            self._wire_channel.basic_ack(tag, multiple=True)

    def __enter__(self) -> Term:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # What is not confirmed by now is the next leader's.
        assert self._channel is not None
        self._channel.close(timeout_s=0.0)
