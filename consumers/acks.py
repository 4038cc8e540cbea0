"""Acknowledgements written together: one write for all that a turn of the event loop settles.

A write of its own for each job wakes RabbitMQ for each job, and a quorum queue takes one command
for many settled messages as quickly as for one. Nothing waits for company: what a turn has
collected is written before the loop sleeps, and before anything else that this channel sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any

from celery.utils.log import get_logger
from kombu.transport import pyamqp

from broker.frames import END, METHOD
from broker.message import COMPRESSION

logger = get_logger("rabbitry.acks")

_ACK = Struct(">BHIHHQB").pack
_ACK_BYTES = 13
_BASIC, _BASIC_ACK = 60, 80
_REJECT, _NACK = (60, 90), (60, 120)


class Acks:
    """The deliveries of one channel that are not settled, and those that are about to be."""

    __slots__ = ("_collected", "_open")

    def __init__(self) -> None:
        # In the order of delivery, which is that of the tags: the first is the smallest.
        self._open: dict[int, None] = {}
        self._collected: list[int] = []

    def __len__(self) -> int:
        return len(self._collected)

    def delivered(self, tag: int) -> None:
        """Note a delivery."""
        self._open[tag] = None

    def ack(self, tag: int) -> None:
        """Collect the acknowledgement of a delivery."""
        self._open.pop(tag, None)
        self._collected.append(tag)

    def ack_all(self, tags: Sequence[int]) -> None:
        """Collect the acknowledgements of several deliveries."""
        for tag in tags:
            self._open.pop(tag, None)
        self._collected += tags

    def settled(self, tag: int) -> None:
        """Note a delivery that was rejected; 0 for all there are."""
        if tag:
            self._open.pop(tag, None)
        else:
            self._open.clear()

    def take(self) -> list[tuple[int, bool]]:
        """Return what to write, each with whether all smaller tags are meant too."""
        tags, self._collected = self._collected, []
        if len(tags) == 1:
            return [(tags[0], False)]
        tags.sort()
        smallest_open = next(iter(self._open), None)
        if smallest_open is None:
            return [(tags[-1], True)] if tags else []
        # RabbitMQ takes `multiple` only up to a tag that is open there.
        below = [tag for tag in tags if tag < smallest_open]
        above = [(tag, False) for tag in tags[len(below) :]]
        return [(below[-1], len(below) > 1), *above] if below else above


class JobMessage(pyamqp.Message):  # type: ignore[misc]
    """kombu's message, made at once instead of by two functions with a dozen arguments each."""

    def __init__(self, msg: Any, channel: Any = None) -> None:
        properties = msg.properties
        headers = properties.get("application_headers") or {}
        if headers.get(COMPRESSION):
            super().__init__(msg, channel)
            return
        self.errors: list[Any] = []
        self.channel = channel
        self.body = msg.body
        self.properties = properties
        self.headers = headers
        self.content_type = properties.get("content_type")
        self.content_encoding = properties.get("content_encoding")
        self.delivery_info = msg.delivery_info
        self.delivery_tag = msg.delivery_tag
        self.accept = self._decoded_cache = None
        self._state = "RECEIVED"


class CollectingChannel(pyamqp.Channel):  # type: ignore[misc]
    """A channel that writes acknowledgements together where an event loop turns."""

    Message = JobMessage

    def __init__(self, connection: Any, *args: Any, **options: Any) -> None:
        self._acks = Acks()
        super().__init__(connection, *args, **options)

    def basic_ack(self, delivery_tag: int, multiple: bool = False, argsig: str = "Lb") -> Any:
        """Acknowledge a delivery, at latest before the event loop sleeps.

        Raises:
            amqp.exceptions.RecoverableConnectionError: the connection is lost.
        """
        connection = self.connection
        if connection is None or not connection.turns or multiple:
            self._acks.settled(delivery_tag)
            return super().basic_ack(delivery_tag, multiple, argsig)
        self._acks.ack(delivery_tag)
        return None

    def ack_all(self, messages: Sequence[Any]) -> bool:
        """Acknowledge many messages, at latest before the event loop sleeps.

        Args:
            messages: kombu's, of this channel, that are not settled yet.

        Returns:
            Whether they were; where no loop turns nothing is done.
        """
        connection = self.connection
        if connection is None or not connection.turns:
            return False
        self._acks.ack_all([message.delivery_tag for message in messages])
        for message in messages:
            message._state = "ACK"
        return True

    def flush(self) -> None:
        """Write what was collected; where the connection is lost it is logged and no error."""
        if not self._acks:
            return
        connection = self.connection
        if connection is None or not connection.connected:
            self._forget()
            return
        acks = self._acks.take()
        try:
            connection.transport.write(_frames(self.channel_id, acks))
        except BrokenPipeError:
            # Celery connects anew by this one, as for a single acknowledgement.
            logger.critical("couldn't ack %s", _text(acks), exc_info=True)
            raise
        except connection.connection_errors:
            logger.critical("couldn't ack %s", _text(acks), exc_info=True)
            return
        # py-amqp's heartbeats look at whether this has changed.
        connection.bytes_sent += 1

    def send_method(self, sig: tuple[int, int], *args: Any, **options: Any) -> Any:
        """Send a method after what was collected before it."""
        self.flush()
        if sig in (_REJECT, _NACK):
            self._acks.settled(args[1][0])
        return super().send_method(sig, *args, **options)

    def collect(self) -> None:
        """Forget what belonged to the channel, which is gone."""
        self._forget()
        super().collect()

    def _do_revive(self) -> None:
        # Tags begin at 1 again.
        self._forget()
        super()._do_revive()

    def _forget(self) -> None:
        if self._acks:
            logger.critical(
                "couldn't ack %s: the connection is lost, and RabbitMQ delivers them again",
                _text(self._acks.take()),
            )
        self._acks = Acks()

    def _on_basic_deliver(self, consumer_tag: str, delivery_tag: int, *args: Any) -> None:
        if consumer_tag not in self.no_ack_consumers:
            self._acks.delivered(delivery_tag)
        super()._on_basic_deliver(consumer_tag, delivery_tag, *args)


def _frames(channel: int, acks: list[tuple[int, bool]]) -> bytes:
    return b"".join(
        _ACK(METHOD, channel, _ACK_BYTES, _BASIC, _BASIC_ACK, tag, multiple) + END
        for tag, multiple in acks
    )


def _text(acks: list[tuple[int, bool]]) -> str:
    tags = ", ".join(f"{'up to ' if multiple else ''}{tag}" for tag, multiple in acks)
    return f"the deliveries {tags}"
