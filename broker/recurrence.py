"""When something recurs: every so often, or as a line of cron says; pure.

Both answer one question, what comes next after a time, and keep nothing: whoever asks with the
same time gets the same answer. Times are whole seconds since 1970-01-01 UTC.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Protocol
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from broker.errors import did_you_mean

FIELDS = ("minute", "hour", "day of month", "month", "day of week")
# Past what datetime can say.
_LAST_S = 253_370_764_800


class Recurrence(Protocol):
    """When something recurs."""

    @property
    def rule(self) -> str:
        """The rule as text: two of the same text recur at the same times."""

    def times(self, after_s: int) -> Iterator[int]:
        """Yield the times after a time, in order."""


@dataclass(frozen=True, slots=True)
class Every:
    """At the multiples of an interval, counted from 1970-01-01 UTC.

    Attributes:
        interval_s: the interval.
    """

    interval_s: int

    @property
    def rule(self) -> str:
        """The rule as text."""
        return f"every {self.interval_s}s"

    def times(self, after_s: int) -> Iterator[int]:
        """Yield the times after a time, in order."""
        due_s = (after_s // self.interval_s + 1) * self.interval_s
        while True:
            yield due_s
            due_s += self.interval_s


@dataclass(frozen=True, slots=True)
class Cron:
    """As a line of cron says, in a time zone.

    Of daylight saving it makes what Debian's cron makes. Where minute and hour are both fixed, a
    time that the clock leaps over comes right after the leap, and one that the clock shows twice
    comes the first time only. Where either begins with ``*`` the clock is followed: nothing comes
    in the hour that is not there, and everything twice in the hour that is there twice.

    Attributes:
        expression: five fields.
        timezone: a name of the IANA's, such as ``Europe/Paris``.

    Raises:
        ValueError: of `checked`: one sentence on what is wrong.
    """

    expression: str
    timezone: str = "UTC"

    def checked(self) -> Cron:
        """Return it, if it can be read and comes to something.

        Raises:
            ValueError: one sentence on what is wrong.
        """
        zone(self.timezone)
        fields = self.expression.split()
        if len(fields) != len(FIELDS):
            raise ValueError(
                f"{self.expression!r} has {len(fields)} of the five fields of a line of cron:"
                f" {', '.join(FIELDS)}"
            )
        try:
            self._iterate(0)
        except CronSimError as exc:
            what = str(exc).removeprefix("Bad ").replace("day-of-", "day of ")
            wrong = fields[FIELDS.index(what)] if what in FIELDS else self.expression
            raise ValueError(f"{wrong!r} is no {what} of a line of cron") from None
        if next(self.times(0), None) is None:
            raise ValueError(f"{self.expression!r} is never due: no such day comes in 50 years")
        return self

    @property
    def rule(self) -> str:
        """The rule as text."""
        return f"cron {' '.join(self.expression.split())} {self.timezone}"

    def times(self, after_s: int) -> Iterator[int]:
        """Yield the times after a time, in order."""
        for when in self._iterate(after_s):
            due_s = int(when.timestamp())
            # The library forgets which of an hour's two occurrences it starts in.
            if due_s > after_s:
                yield due_s

    def _iterate(self, after_s: int) -> CronSim:
        start = datetime.fromtimestamp(min(after_s, _LAST_S), UTC)
        # Only for UTC itself does the library leave daylight saving alone.
        here = start if self.timezone == "UTC" else start.astimezone(zone(self.timezone))
        return CronSim(self.expression, here)


@cache
def zone(name: str) -> ZoneInfo:
    """Return a time zone.

    Raises:
        ValueError: there is none of this name.
    """
    known = available_timezones()
    if name not in known:
        raise ValueError(
            f"no time zone is named {name!r}{did_you_mean(name, known)}; write one such as"
            " Europe/Paris or UTC"
        )
    return ZoneInfo(name)


def text_of(due_s: int) -> str:
    """Write a time as in ``2026-03-01T17:03:00Z``."""
    return datetime.fromtimestamp(due_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
