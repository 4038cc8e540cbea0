"""Which message RabbitMQ closed a channel for: it says why, but not which.

A missing exchange, one that the user may not write to, or a body that is too large closes the
channel, and RabbitMQ drops whatever was written behind it. Where the reason fits several messages
that were not confirmed yet, to an exchange that took messages until now, some of them may have
been routed before; so none is blamed at first. All are sent again, and those that meet the same
end twice are the ones.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

from broker.errors import MessageTooLarge, PublishFailed, Rejected, Unroutable
from broker.frames import body_bytes
from broker.receipt import Receipt

_SIZE = re.compile(r"message size (\d+) is larger than (?:configured )?max size (\d+)")


class Strikes:
    """Remembers why the channel was closed the last time."""

    def __init__(self) -> None:
        self._last = ""

    def culprits(
        self, pending: Sequence[Receipt], text: str, *, took: Container[str] = ()
    ) -> list[Receipt]:
        """Return the messages that a channel was closed for, as far as that is certain.

        Args:
            pending: what was written and is not confirmed, in order.
            text: RabbitMQ's reason.
            took: the exchanges that have taken a message and were not refused since.
        """
        again, self._last = self._last == text, text
        size = _SIZE.search(text)
        if size:
            # An earlier one of the same size would have closed the channel itself.
            return [each for each in pending if _size(each) == int(size[1])][:1]
        named = [each for each in pending if _is_named(each, text)]
        candidates = named or list(pending)
        if len(candidates) == 1 or (named and named[0].exchange not in took):
            return candidates
        twice = [each for each in candidates if each.redelivered] if again else []
        return twice if named else twice[:1]


def refusal_of(receipt: Receipt, code: int, text: str) -> PublishFailed:
    """Return the outcome of a message that RabbitMQ closed the channel for."""
    message_id, exchange, routing_key = receipt.message_id, receipt.exchange, receipt.routing_key
    if code == 404:
        return Unroutable(
            message_id=message_id,
            exchange=exchange,
            routing_key=routing_key,
            reply_code=code,
            reply_text=text,
        )
    reason = f"{code} {text}"
    size = _SIZE.search(text)
    too_large = None
    if size:
        too_large = MessageTooLarge(size_bytes=int(size[1]), limit_bytes=int(size[2]))
        reason = f"{reason}; {too_large}"
    error = Rejected(
        message_id=message_id, exchange=exchange, routing_key=routing_key, reason=reason
    )
    error.__cause__ = too_large
    return error


def _size(receipt: Receipt) -> int:
    return -1 if receipt.content is None else body_bytes(receipt.content)


def names(text: str, exchange: str) -> bool:
    """Say whether RabbitMQ's reason is about this exchange."""
    return f"exchange '{exchange}'" in text


def _is_named(receipt: Receipt, text: str) -> bool:
    if not names(text, receipt.exchange):
        return False
    # Topic permissions are refused for a routing key.
    return "topic '" not in text or f"topic '{receipt.routing_key}'" in text
