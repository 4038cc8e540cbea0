"""The messages of one confirmed channel: what waits, what was written, what was returned.

Used by the connection's thread; others only append to `waiting`.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from broker.culprit import Strikes
from broker.errors import Unroutable
from broker.frames import wire_bytes
from broker.receipt import Receipt
from broker.wire import Confirm

# How much is joined into one write.
WRITE_MESSAGES = 256
WRITE_BYTES = 128 * 2**10


class Flight:
    """Receipts by what has happened to their messages.

    Attributes:
        waiting: to be written, in order.
        unconfirmed: written on this channel, by delivery tag, in order.
    """

    def __init__(self) -> None:
        self.waiting: deque[Receipt] = deque()
        self.unconfirmed: dict[int, Receipt] = {}
        self._returned: dict[tuple[str, str, str], deque[tuple[int, str]]] = {}
        self._strikes = Strikes()
        self._tag = 0
        self._oldest = 1

    def pending(self) -> list[Receipt]:
        """Return the receipts that have not ended, in order."""
        every = [*self.unconfirmed.values(), *self.waiting]
        return [receipt for receipt in every if receipt._outcome is None]

    def begin_channel(self) -> None:
        """Count delivery tags from one again."""
        self._tag, self._oldest = 0, 1

    def next_buffers(self, frame_max: int) -> list[bytes | memoryview]:
        """Move the next messages from waiting to unconfirmed, and return what to write."""
        waiting, unconfirmed = self.waiting, self.unconfirmed
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

    def settle(
        self, confirms: list[Confirm]
    ) -> tuple[list[Receipt], list[tuple[Receipt, Unroutable]], list[Receipt]]:
        """Return whose messages were routed, which were returned, and whose were refused."""
        pop = self.unconfirmed.pop
        routed: list[Receipt] = []
        unroutable: list[tuple[Receipt, Unroutable]] = []
        refused: list[Receipt] = []
        for positive, tag, multiple in confirms:
            tags = range(self._oldest, tag + 1) if multiple else range(tag, tag + 1)
            if multiple:
                self._oldest = tag + 1
            settled = [receipt for each in tags if (receipt := pop(each, None)) is not None]
            if not positive:
                refused += settled
            elif not self._returned:
                routed += settled
            else:
                for receipt in settled:
                    returned = self._take_returned(receipt)
                    if returned is None:
                        routed.append(receipt)
                    else:
                        unroutable.append((receipt, returned))
        return routed, unroutable, refused

    def returned(self, error: Any, exchange: str, routing_key: str, message: Any) -> None:
        """Remember a return; it comes before the ack of the same message, on the same channel."""
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

    def note_unwritten(self, left: int, frame_max: int) -> None:
        """Take back that messages were sent of which the lost connection took nothing."""
        for receipt in reversed(self.unconfirmed.values()):
            size = 0 if receipt.content is None else wire_bytes(receipt.content, frame_max)
            if not 0 < size <= left:
                return
            left -= size
            receipt.sent = receipt.redelivered

    def keep_unconfirmed(self) -> None:
        """Send what was not confirmed again, before what waits."""
        again = [each for each in self.unconfirmed.values() if each._outcome is None]
        self.unconfirmed.clear()
        self._returned.clear()
        self.waiting.extendleft(reversed(again))

    def culprits(self, text: str) -> list[Receipt]:
        """Return whom RabbitMQ has closed the channel for; see `broker.culprit`."""
        written = [each for each in self.unconfirmed.values() if each._outcome is None]
        return self._strikes.culprits(written, text)
