"""Empties an outbox: sends what waits in it, until nothing is left that could be sent now."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from broker.errors import (
    EXIT_DIFFERS,
    EXIT_DONE,
    EXIT_REFUSED,
    EXIT_UNKNOWN,
    EXIT_UNREACHABLE,
)
from producers.outbox.file import OutboxFile, Row
from producers.outbox.relay import LOOK_S, Outbox


@dataclass(slots=True)
class Flushed:
    """What became of an outbox.

    Attributes:
        sent: jobs that have left it since.
        waiting: jobs that wait in it.
        aside: jobs that are set aside.
        refused: the jobs that RabbitMQ has refused, with its reasons; the first 1,000.
        under_way: how many were sent, and not confirmed when the time was over.
        away: why RabbitMQ cannot be reached, or None.
    """

    sent: int = 0
    waiting: int = 0
    aside: int = 0
    refused: list[Row] = field(default_factory=list)
    under_way: int = 0
    away: str | None = None

    @property
    def exit_code(self) -> int:
        """The command's exit code."""
        if self.under_way:
            return EXIT_UNKNOWN
        if self.refused:
            return EXIT_REFUSED
        if not self.waiting:
            return EXIT_DONE
        return EXIT_UNREACHABLE if self.away else EXIT_DIFFERS


def flush(
    outbox: Outbox,
    *,
    before: int,
    timeout_s: float,
    tell: Callable[[int, int], None] = lambda _sent, _waiting: None,
) -> Flushed:
    """Wait until an outbox is empty, but for what RabbitMQ refuses.

    Args:
        outbox: made with ``one_shot``; it, or another process, does the sending.
        before: how many jobs waited when it was made; it may have sent some of them by now.
        timeout_s: end after so many seconds in which no job has left.
        tell: is called, again and again, with how many jobs have left and how many wait.

    Raises:
        OutboxError: the file cannot be read.
    """
    file = OutboxFile(outbox.path, create=False)
    try:
        least = before
        moved_at = time.monotonic()
        while True:
            held = outbox.refused_names
            waiting = file.counts()["waiting"]
            tell(before - waiting, waiting)
            if not waiting:
                break
            if outbox.quiet and held and not file.waiting(after=0, limit=1, without=held):
                break
            if waiting < least:
                least, moved_at = waiting, time.monotonic()
            elif time.monotonic() - moved_at > timeout_s:
                break
            with outbox.changed:
                outbox.changed.wait(LOOK_S)
        away = outbox.away
        under_way = outbox.under_way
        counts = file.counts()
        return Flushed(
            sent=before - counts["waiting"],
            waiting=counts["waiting"],
            aside=counts["aside"],
            refused=file.refused(),
            under_way=under_way,
            away=away,
        )
    finally:
        file.close()
