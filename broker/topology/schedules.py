"""What a topology file says about jobs that recur."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from broker.recurrence import Cron, Every, Recurrence
from broker.topology.strict import Strict
from broker.topology.values import PositiveDuration

CatchUp = Literal["skip", "latest", "all"]
# Part of the message ids of its ticks, where @ parts it from the time.
ScheduleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]


def _whole_seconds(value: timedelta) -> timedelta:
    if value % timedelta(seconds=1):
        raise ValueError("an interval is a whole number of seconds")
    return value


class Schedule(Strict):
    """A job that recurs: `every` so often, or when a line of `cron` says."""

    job: Annotated[str, Field(min_length=1)]
    """The job that is published."""
    every: Annotated[PositiveDuration, AfterValidator(_whole_seconds)] | None = None
    """The interval, in whole seconds: due at its multiples since 1970-01-01 UTC."""
    cron: str | None = None
    """Five fields instead: minute, hour, day of month, month, day of week."""
    timezone: str | None = None
    """The time zone that `cron` is meant in, such as Europe/Paris; UTC, when not given."""
    arguments: dict[str, Any] = {}
    """The keyword arguments of the job."""
    catch_up: CatchUp = "latest"
    """What is published of ticks that fell due while nobody could: none, the latest, or all
    (at most the latest 1000)."""

    @model_validator(mode="after")
    def _recur_one_way(self) -> Self:
        if (self.every is None) == (self.cron is None):
            raise ValueError("a schedule says either every or cron")
        if self.cron is None and self.timezone is not None:
            raise ValueError("an interval has no time zone; leave timezone out, or write cron")
        if isinstance(self.recurrence, Cron):
            self.recurrence.checked()
        return self

    @property
    def recurrence(self) -> Recurrence:
        """When it is due."""
        if self.cron is not None:
            return Cron(self.cron, self.timezone or "UTC")
        assert self.every is not None
        return Every(self.every // timedelta(seconds=1))
