"""Deletes dead letters that somebody has looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from consumers.dead_letters.letter import Filter, Letter
from consumers.queues.browse import Browser


@dataclass(slots=True)
class Dropping:
    """How far a deletion is.

    Attributes:
        left: how many of each queue and id are still to be deleted.
        dropped: how many were.
    """

    left: Counter[tuple[str, str]] = field(default_factory=Counter)
    dropped: int = 0


def drop(
    browser: Browser,
    queue: str,
    *,
    meant: Filter,
    dropping: Dropping,
    stopped: Callable[[], bool] = lambda: False,
    on_letter: Callable[[Letter], object] = lambda _: None,
) -> None:
    """Delete the letters of a queue that are left to be deleted.

    Args:
        browser: looks into the queue.
        queue: its name.
        meant: which letters; what else has one of the ids stays.
        dropping: which ids, and told what was deleted.
        stopped: asked between letters; once it says so no more are deleted.
        on_letter: told each letter that was looked at.

    Raises:
        BrokerUnavailable: RabbitMQ was lost.
    """
    for delivery in browser.deliveries(stopped=stopped):
        letter = Letter.of(queue, delivery)
        on_letter(letter)
        key = (queue, letter.id)
        if dropping.left[key] and meant.takes(letter):
            dropping.left[key] -= 1
            browser.let_go(delivery)
            dropping.dropped += 1
