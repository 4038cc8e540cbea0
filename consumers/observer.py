"""Who counts what becomes of a worker's jobs."""

from __future__ import annotations


class JobObserver:
    """Hangs at `app.observer` and counts nothing; a subclass does.

    Everything is told in the worker's own process, whichever process or thread runs the jobs, in
    the thread that the message or its result reached. Every method must be quick and must not
    raise.
    """

    def received(self, job: str, queue: str, *, waited_s: float | None, redelivered: bool) -> None:
        """Note a message that is in this worker's hands from now on.

        Args:
            job: its name, or "" where the message names no job of the worker's.
            queue: that it came from, or "" where nobody knows.
            waited_s: seconds since it was published; None where its message does not say.
            redelivered: whether RabbitMQ has delivered it before.
        """

    def began(self, job: str, queue: str, *, count: int = 1) -> None:
        """Note that so many of a job run from now on."""

    def ended(
        self, job: str, queue: str, outcome: str, *, ran_s: float | None, count: int = 1
    ) -> None:
        """Note how a delivery of a job ended, or several; each that was received ends once.

        Args:
            job: its name.
            queue: that it came from.
            outcome: ``done``, ``retried`` (returned to its queue as failed), ``dead`` (a dead
                letter), ``answered`` (a call that got an error) or ``returned`` (given back to its
                queue, not counted as a failure).
            ran_s: how long it ran, seconds; None where it never began.
            count: of how many deliveries, such as those of a batch, that is true.
        """

    def dead_lettered(self, queue: str, reason: str) -> None:
        """Note a dead letter that RabbitMQ has confirmed, of a queue and with a `Reason`."""

    def reconnected(self) -> None:
        """Note a connection to RabbitMQ that replaces one that was lost."""
