"""The messages of one confirmed channel: what waits, what was written, what was returned.

Used by the connection's thread; others only append to `waiting`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from broker.culprit import Strikes, names, refusal_of
from broker.errors import PublishFailed, Rejected, Unroutable
from broker.frames import wire_bytes
from broker.receipt import Receipt
from broker.wire import Confirm

# How much is joined into one write.
WRITE_MESSAGES = 256
WRITE_BYTES = 128 * 2**10


class Flight:
    """Receipts by what has happened to their messages.

    Args:
        why_rejected: says for an exchange and routing key why RabbitMQ may refuse a message.

    Attributes:
        waiting: to be written, in order.
        unconfirmed: written on this channel, by delivery tag, in order.
    """

    def __init__(self, why_rejected: Callable[[str, str], str | None] | None = None) -> None:
        self._why_rejected = why_rejected
        self.waiting: deque[Receipt] = deque()
        self.unconfirmed: dict[int, Receipt] = {}
        self._returned: dict[tuple[str, str, str], deque[tuple[int, str]]] = {}
        self._strikes = Strikes()
        self._took: set[str] = set()
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
    ) -> tuple[list[Receipt], list[tuple[Receipt, PublishFailed]]]:
        """Return whose messages were routed, and whose were returned or refused."""
        pop = self.unconfirmed.pop
        routed: list[Receipt] = []
        refused: list[tuple[Receipt, PublishFailed]] = []
        for positive, tag, multiple in confirms:
            tags = range(self._oldest, tag + 1) if multiple else range(tag, tag + 1)
            if multiple:
                self._oldest = tag + 1
            settled = [receipt for each in tags if (receipt := pop(each, None)) is not None]
            if not positive:
                refused += [(each, self._fate(each, self._rejected(each))) for each in settled]
            elif not self._returned:
                routed += settled
            else:
                for receipt in settled:
                    returned = self._take_returned(receipt)
                    if returned is None:
                        routed.append(receipt)
                    else:
                        refused.append((receipt, self._fate(receipt, returned)))
        self._took.update([receipt.exchange for receipt in routed])
        return routed, refused

    def closed(self, code: int, text: str) -> list[tuple[Receipt, PublishFailed]]:
        """Return whom RabbitMQ has closed the channel for, and how they end."""
        written = [each for each in self.unconfirmed.values() if each._outcome is None]
        culprits = self._strikes.culprits(written, text, took=self._took)
        # Whether an exchange that is refused now takes messages again is to be seen.
        self._took = {exchange for exchange in self._took if not names(text, exchange)}
        if culprits and not culprits[0].redelivered:
            # RabbitMQ took nothing of what was written behind the first of them.
            for receipt in written[written.index(culprits[0]) + 1 :]:
                receipt.sent = receipt.redelivered
        return [(each, self._fate(each, refusal_of(each, code, text))) for each in culprits]

    @staticmethod
    def _fate(receipt: Receipt, refusal: PublishFailed) -> PublishFailed:
        """Return how a refused message ends: as unknown where an earlier sending may be in."""
        if not receipt.redelivered:
            return refusal
        reason = f"the connection failed before; sent again, it met this: {refusal}"
        return receipt.unknown(reason, cause=refusal)

    def _rejected(self, receipt: Receipt) -> Rejected:
        why = self._why_rejected
        return Rejected(
            message_id=receipt.message_id,
            exchange=receipt.exchange,
            routing_key=receipt.routing_key,
            reason=None if why is None else why(receipt.exchange, receipt.routing_key),
        )

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
