"""What a task says of its own failure, whatever its `retry_on` and `give_up_on` say."""

from __future__ import annotations

__all__ = ["Cancelled", "GiveUp", "TryAgain"]


class GiveUp(Exception):
    """No attempt will mend it: the job becomes a dead letter at once."""


class TryAgain(Exception):
    """Another attempt may mend it: the message goes back to RabbitMQ while its queue has any."""


class Cancelled(Exception):
    """Nobody wants it any more: a call is answered so, and a job becomes a dead letter that says
    so; a task raises it where it finds `current_job().cancelled`."""
