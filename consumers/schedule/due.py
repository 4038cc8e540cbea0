"""Which ticks of a schedule are due; pure. Times are whole seconds since 1970-01-01 UTC."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import takewhile

from broker.recurrence import Recurrence, text_of
from broker.topology.schedules import CatchUp

# A tick that is no later than this is published whatever the rule for outages: another leader,
# a new connection and a restart of RabbitMQ take less.
ON_TIME_S = 10
# Of what fell due in an outage `all` publishes the latest so many.
CATCH_UP_MOST = 1000
# A long outage is looked into from its end, each time further back.
_SPANS_S = (3600, 86_400, 32 * 86_400, 400 * 86_400)


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done about a schedule.

    Attributes:
        ticks: when those fell due that are to be published, in order.
        skipped: how many are not, by the schedule's rule; at most `CATCH_UP_MOST` are counted.
        until_s: the last of both; None where nothing fell due.
    """

    ticks: tuple[int, ...] = ()
    skipped: int = 0
    until_s: int | None = None


def due(recurrence: Recurrence, *, done_s: int, now_s: int, catch_up: CatchUp) -> Due:
    """Return what fell due after the last tick that is done.

    Args:
        recurrence: of the schedule.
        done_s: when the last tick fell due that is done.
        now_s: the time.
        catch_up: the rule for ticks that are later than `ON_TIME_S`.
    """
    missed = latest(recurrence, after_s=done_s, until_s=now_s, most=2 * CATCH_UP_MOST)
    if not missed:
        return Due()
    on_time = [due_s for due_s in missed if now_s - due_s <= ON_TIME_S]
    match catch_up:
        case "all":
            ticks = missed[-CATCH_UP_MOST:]
        case "latest":
            ticks = on_time or missed[-1:]
        case "skip":
            ticks = on_time
    skipped = min(len(missed) - len(ticks), CATCH_UP_MOST)
    return Due(tuple(ticks), skipped, missed[-1])


def latest(recurrence: Recurrence, *, after_s: int, until_s: int, most: int) -> list[int]:
    """Return the latest times after one and until another, at most so many, in order."""
    found: deque[int] = deque(maxlen=most)
    for span_s in (*_SPANS_S, until_s - after_s):
        start_s = max(after_s, until_s - span_s)
        times = recurrence.times(start_s)
        found = deque(takewhile(lambda due_s: due_s <= until_s, times), maxlen=most)
        if start_s == after_s or len(found) == most:
            break
    return list(found)


def tick_id(schedule: str, due_s: int) -> str:
    """Return the message id of a tick: the same whoever publishes it, however often."""
    return f"{schedule}@{text_of(due_s)}"
