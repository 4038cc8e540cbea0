"""What a topology file says about jobs that are to wait."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator

from broker.topology.strict import Strict
from broker.topology.values import Duration, ShortText

SHORTEST = timedelta(seconds=1)
# The longest rung is then 2^22 s: RabbitMQ counts a time to live in milliseconds, and Erlang's
# timers end at 2^32 of them.
LONGEST = timedelta(days=90)


def _check_max(value: timedelta) -> timedelta:
    if not SHORTEST <= value <= LONGEST:
        raise ValueError("the longest delay is from 1s to 90d; what comes later needs a schedule")
    return value


class Delays(Strict):
    """The delay ladder: queues of RabbitMQ's in which jobs wait until they are due."""

    max: Annotated[Duration, AfterValidator(_check_max)] = timedelta(days=30)
    """The longest delay, at most 90d. Each doubling of it is one more queue."""
    queues: list[ShortText] | None = None
    """The queues that delayed jobs may go to; all but streams, when not given."""
