"""Sends replies over a connection of their own: confirmed, and never in anybody's way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property

from celery.utils.log import get_logger

from broker.confirmed import ConfirmedChannel
from broker.connection import Address
from broker.errors import MessageTooLarge
from broker.frames import Content
from broker.receipt import Receipt, Routed

logger = get_logger("rabbitry.replies")

# What is under way is bounded by what this process may hold of RabbitMQ's messages (a prefetch has
# 16 bits), and each running task tells news of its own at a bounded rate: no reply waits for room.
WINDOW = 2**16
# Which size is too large is RabbitMQ's to say (its max_message_size); this is the most that it can
# be configured to take.
MOST_BYTES = 512 * 2**20
# Nobody has RabbitMQ take less than this.
LARGE_BYTES = 64 * 2**10


class ReplySender:
    """Sends the replies of one process; threads share it.

    The connection is opened with the first reply, and in each forked process anew. What was not
    confirmed when it was lost is sent again on the next one, until its deadline; a caller that gets
    it twice takes it once. A queue that is gone costs its own reply only: RabbitMQ returns that.

    Whoever acknowledges a call asks `unconfirmed` for what that has to wait for: what was written
    may die with its process, or with its connection, until RabbitMQ has confirmed it.

    Args:
        address: where RabbitMQ is.

    Attributes:
        dropped: how many replies of this process found no queue, or were not confirmed in time.
    """

    def __init__(self, address: Address) -> None:
        self.dropped = 0
        self._address = address
        self._of_thread = threading.local()

    @cached_property
    def _channel(self) -> ConfirmedChannel:
        return ConfirmedChannel(
            self._address, name="rabbitry-replies", window=WINDOW, max_message_bytes=MOST_BYTES
        )

    def send(self, content: Content, *, id: str, reply_to: str, timeout_s: float) -> Receipt:
        """Hand over a reply, without waiting.

        Args:
            content: its frames.
            id: their message id.
            reply_to: the queue that they go to.
            timeout_s: seconds until it is dropped.
        """
        receipt = self._channel.send(
            content, message_id=id, exchange="", routing_key=reply_to, timeout_s=timeout_s
        )
        receipt.add_done_callback(self._count)
        return receipt

    def settle(self, receipt: Receipt) -> None:
        """Wait until a reply is on its way, or over; one on its way is then this thread's.

        Where the connection takes bytes it is on its way already: the next job may begin, and who
        acknowledges this one waits for the confirm. Without a connection the thread's time must not
        be spent on other jobs that nobody can be told of. A large one is waited for to its end:
        RabbitMQ may refuse it.

        Args:
            receipt: of the reply.
        """
        content = receipt.content
        is_large = content is not None and len(content) > LARGE_BYTES
        if is_large or not self._channel.flows:
            wait(receipt)
        if not receipt.done:
            self._of_thread.receipts = [*getattr(self._of_thread, "receipts", ()), receipt]

    def unconfirmed(self) -> Sequence[Receipt]:
        """Take the replies that were settled in this thread since it was asked last.

        Those of which nobody knows yet what became of them: the job that they belong to must not be
        acknowledged before that.
        """
        receipts: list[Receipt] = getattr(self._of_thread, "receipts", [])
        self._of_thread.receipts = []
        return [receipt for receipt in receipts if not receipt.done]

    def soon(self, work: Callable[[], None]) -> None:
        """Call from the connection's thread, after what it deals with now."""
        self._channel.loop.soon(work)

    def call_at(self, when: float, work: Callable[[], None]) -> None:
        """Call from the connection's thread at a time of `time.monotonic`."""
        loop = self._channel.loop
        loop.soon(lambda: loop.call_at(when, work))

    def _count(self, receipt: Receipt) -> None:
        outcome = receipt.outcome
        if isinstance(outcome, Routed):
            return
        self.dropped += 1
        logger.warning("the reply to call %s is dropped: %s", receipt.message_id, outcome)


def wait(receipt: Receipt) -> None:
    """Wait until it is known what became of a reply, at most until its deadline."""
    if receipt.done:
        return
    # A lock of its own for each: all receipts share one condition, whose every waiter would be
    # woken by every reply.
    done = threading.Lock()
    done.acquire()
    receipt.add_done_callback(lambda _: done.release())
    done.acquire()


def too_large(receipt: Receipt) -> MessageTooLarge | None:
    """Return what RabbitMQ said of a reply that is larger than it takes, or None."""
    cause = getattr(receipt.outcome, "__cause__", None)
    return cause if isinstance(cause, MessageTooLarge) else None
