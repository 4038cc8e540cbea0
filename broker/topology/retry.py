"""When RabbitMQ redelivers what failed, and when it gives up; pure.

https://www.rabbitmq.com/docs/quorum-queues#delayed-retry
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from broker.topology.effective import DEFAULTS, Setting, value_of
from broker.units import format_duration

_SHOWN_WAITS = 6
_TYPES = {"failed", "returned", "all"}


@dataclass(frozen=True, slots=True)
class Schedule:
    """The redeliveries of a quorum queue.

    Attributes:
        delay_ms: the wait before the first; 0 where messages come again at once.
        longest_ms: the longest wait.
        limit: how many redeliveries there are; None for no end.
        type: which redeliveries wait: failed, returned, or all.
    """

    delay_ms: int
    longest_ms: int
    limit: int | None
    type: str = "failed"

    def wait_ms(self, attempt: int) -> int:
        """Return the wait before the n-th redelivery."""
        return min(self.delay_ms * attempt, self.longest_ms)

    @property
    def total_ms(self) -> int | None:
        """All waits together, or None without end."""
        if self.limit is None:
            return None
        # Arithmetic, since a limit may be any number.
        rising = min(self.limit, self.longest_ms // self.delay_ms) if self.delay_ms else 0
        return self.delay_ms * rising * (rising + 1) // 2 + self.longest_ms * (self.limit - rising)

    def __str__(self) -> str:
        if self.limit == 0:
            return "is not redelivered"
        times = "without end" if self.limit is None else f"{self.limit} times"
        if not self.delay_ms:
            return f"is redelivered at once, {'once' if self.limit == 1 else times}"
        shown = range(1, 1 + min(self.limit or _SHOWN_WAITS, _SHOWN_WAITS))
        waits = ", ".join(_words(self.wait_ms(attempt)) for attempt in shown)
        if self.limit is not None and self.limit > _SHOWN_WAITS:
            waits += f" … {_words(self.wait_ms(self.limit))}"
        elif self.limit is None:
            waits += f" … at most {_words(self.longest_ms)}"
        together = "" if self.total_ms is None else f", {_words(self.total_ms)} together"
        return f"is redelivered after {waits} ({times}{together})"


def schedule_of(settings: Mapping[str, Setting]) -> Schedule:
    """Return when a quorum queue redelivers, from the settings in force."""
    limit = value_of(settings, "delivery-limit")
    if not isinstance(limit, int) or isinstance(limit, bool):
        # RabbitMQ stores any value of the argument and then takes its own.
        limit = DEFAULTS["quorum"]["delivery-limit"]
    end = None if limit < 0 else limit
    type_ = value_of(settings, "delayed-retry-type")
    delay = _positive(value_of(settings, "delayed-retry-min"))
    if type_ not in _TYPES or delay is None:
        return Schedule(0, 0, end)
    # Without a longest wait all are as long as the first.
    return Schedule(
        delay, _positive(value_of(settings, "delayed-retry-max")) or delay, end, str(type_)
    )


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _words(value_ms: int) -> str:
    return format_duration(timedelta(milliseconds=value_ms))
