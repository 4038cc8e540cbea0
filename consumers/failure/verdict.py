"""What a task says of its own failure, whatever its `retry_on` and `give_up_on` say."""

from __future__ import annotations

__all__ = ["GiveUp", "TryAgain"]


class GiveUp(Exception):
    """No attempt will mend it: the job becomes a dead letter at once."""


class TryAgain(Exception):
    """Another attempt may mend it: the message goes back to RabbitMQ while its queue has any."""
