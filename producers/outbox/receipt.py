"""What became of a job that went through an outbox."""

from __future__ import annotations

from typing import Any

from broker.errors import OutcomeUnknown, RabbitryError, Rejected, Unroutable
from broker.receipt import Receipt
from producers.outbox.file import Row
from producers.outbox.stored import Stored


class OutboxReceipt(Receipt):
    """What became of a job that went through an outbox.

    Attributes:
        accepted: whether the job is on the disk: RabbitMQ and this process may go away.
    """

    __slots__ = ("accepted", "failure", "position")

    def __init__(self, outbox: Any, stored: Stored, *, deadline: float) -> None:
        super().__init__(
            outbox,
            stored.message.id,
            None,
            exchange=stored.exchange,
            routing_key=stored.routing_key,
            deadline=deadline,
        )
        self.accepted = False
        self.failure: RabbitryError | None = None
        self.position: int | None = None


def refusal_of(receipt: Receipt, row: Row) -> RabbitryError:
    """Return the outcome that stands in the file, where another process has sent the job."""
    where = {
        "message_id": receipt.message_id,
        "exchange": receipt.exchange,
        "routing_key": receipt.routing_key,
    }
    if row.state == "dropped":
        return OutcomeUnknown(sent=row.refusals > 0, reason="it was dropped", **where)
    if row.outcome == "unroutable":
        code, _, text = (row.reason or "312 NO_ROUTE").partition(" ")
        return Unroutable(reply_code=int(code), reply_text=text, **where)
    return Rejected(reason=row.reason, **where)
