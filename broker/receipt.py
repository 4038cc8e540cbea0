"""What became of one message: a receipt, and how it may end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.errors import InvalidInput, OutcomeUnknown, PublishFailed

if TYPE_CHECKING:
    from broker.confirmed import ConfirmedChannel


@dataclass(frozen=True, slots=True)
class Routed:
    """Every queue that the message was routed to has it on disk (quorum: on a majority)."""

    message_id: str
    exchange: str
    routing_key: str


# Of many jobs also one that was never sent, since it cannot be.
Outcome = Routed | PublishFailed | InvalidInput
# Stands for a `Routed` that nobody has asked for yet: most never are.
ROUTED: Final = Routed("", "", "")


class Receipt:
    """What became of one message; may be asked from any thread.

    Attributes:
        message_id, exchange, routing_key: of the message.
        redelivered: whether it was sent more than once, so that RabbitMQ may have it twice.
    """

    __slots__ = (
        "_callbacks",
        "_confirmed",
        "_outcome",
        "content",
        "deadline",
        "exchange",
        "message_id",
        "redelivered",
        "routing_key",
        "sent",
        "started",
    )

    def __init__(
        self,
        confirmed: ConfirmedChannel,
        message_id: str,
        content: Any,
        *,
        exchange: str,
        routing_key: str,
        deadline: float,
        started: float = 0.0,
    ) -> None:
        self._confirmed = confirmed
        self._outcome: Outcome | None = None
        self._callbacks: list[Callable[[Receipt], None]] | None = None
        self.message_id = message_id
        self.content = content
        self.exchange = exchange
        self.routing_key = routing_key
        self.deadline = deadline
        self.started = started
        self.sent = False
        self.redelivered = False

    @property
    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._outcome is not None

    @property
    def outcome(self) -> Outcome | None:
        """How it ended, or None while it is under way; never raises."""
        if self._outcome is ROUTED:
            self._outcome = Routed(self.message_id, self.exchange, self.routing_key)
        return self._outcome

    def wait(self, timeout_s: float | None = None) -> Routed:
        """Wait for the outcome; the publish's own deadline ends the wait in any case.

        Args:
            timeout_s: at most this many seconds; None waits for the deadline.

        Raises:
            Unroutable, Rejected, OutcomeUnknown: how the publish ended.
            InvalidInput: of `Publisher.publish_many`: the job could not be sent at all.
            TimeoutError: `timeout_s` passed first; the publish is still under way.
        """
        if self._outcome is None and not self._confirmed.wait_for(self, timeout_s):
            raise TimeoutError(f"message {self.message_id} is not confirmed after {timeout_s} s")
        outcome = self.outcome
        if isinstance(outcome, Routed):
            return outcome
        assert outcome is not None
        raise outcome

    def add_done_callback(self, callback: Callable[[Receipt], None]) -> None:
        """Call back once the outcome is known: at once, or from the connection's thread."""
        with self._confirmed.changed:
            if self._outcome is None:
                self._callbacks = [*(self._callbacks or ()), callback]
                return
        callback(self)

    def unknown(self, reason: str, *, cause: BaseException | None = None) -> OutcomeUnknown:
        """Return the outcome that stands for not knowing it."""
        error = OutcomeUnknown(
            message_id=self.message_id,
            exchange=self.exchange,
            routing_key=self.routing_key,
            sent=self.sent,
            reason=reason,
        )
        error.__cause__ = cause
        return error
