"""How far each schedule is done, as the token carries it from leader to leader; pure.

Times are whole seconds since 1970-01-01 UTC.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from broker.errors import InvalidMessage
from broker.topology.schedules import Schedule

FORMAT = 1
# A mark that is further ahead of the clock than this is of a clock that was wrong.
AHEAD_S = 60
# How long a schedule that is gone from the file is remembered: longer than an update takes, in
# which leaders with the old and with the new file may take turns.
GONE_S = 86_400


@dataclass(frozen=True, slots=True)
class Mark:
    """How far one schedule is done.

    Attributes:
        done_s: when the last tick fell due that is done; at first, when the schedule came.
        rule: what it recurs by, as text; with another one it begins anew.
        outcome: of the last tick: ``routed``, ``unroutable``, ``rejected``, or None before it.
        gone_s: since when a leader's file lacks it, or None.
    """

    done_s: int
    rule: str
    outcome: str | None = None
    gone_s: int | None = None


Marks = Mapping[str, Mark]


@dataclass(frozen=True, slots=True)
class State:
    """What a token says.

    Attributes:
        marks: by schedule.
        leader: who wrote it, as its consumer tag; "" in a token that was nobody's yet.
        written_s: when.
    """

    marks: Marks
    leader: str = ""
    written_s: int = 0

    def encode(self) -> bytes:
        """Write it as JSON."""
        marks = {name: asdict(mark) for name, mark in sorted(self.marks.items())}
        data = {"format": FORMAT, "leader": self.leader, "written_s": self.written_s}
        return json.dumps({**data, "marks": marks}).encode()


def decode(content: bytes) -> State:
    """Read a token.

    Raises:
        InvalidMessage: it is none, or of a later format.
    """
    try:
        data: dict[str, Any] = json.loads(content)
        if data["format"] != FORMAT:
            raise InvalidMessage(
                f"the token of the schedules has format {data['format']!r}, this rabbitry reads"
                f" {FORMAT}; run one as new as the scheduler that wrote it"
            )
        marks = {name: _mark(each) for name, each in data["marks"].items()}
        return State(marks, str(data["leader"]), int(data["written_s"]))
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise InvalidMessage(f"a message in the queue of the token is none: {exc}") from exc


def _mark(data: Mapping[str, Any]) -> Mark:
    outcome, gone_s = data.get("outcome"), data.get("gone_s")
    return Mark(
        int(data["done_s"]),
        str(data["rule"]),
        None if outcome is None else str(outcome),
        None if gone_s is None else int(gone_s),
    )


def merged(first: Marks, *others: Marks) -> dict[str, Mark]:
    """Return the marks of several tokens as one: of each schedule the furthest, or else the last.

    A leader that dies between writing a token and dropping the one before leaves both.
    """
    found = dict(first)
    for marks in others:
        for name, mark in marks.items():
            if name not in found or mark.done_s >= found[name].done_s:
                found[name] = mark
    return found


def adapted(marks: Marks, schedules: Mapping[str, Schedule], *, now_s: int) -> dict[str, Mark]:
    """Return the marks of the schedules that there are now.

    A schedule that is new, or recurs by another rule, begins now. One that is gone is forgotten
    after a while. A mark of the future is of a clock that was wrong: it becomes now.
    """
    found: dict[str, Mark] = {}
    for name, mark in marks.items():
        if name in schedules:
            continue
        gone_s = now_s if mark.gone_s is None else mark.gone_s
        if now_s - gone_s < GONE_S:
            found[name] = replace(mark, gone_s=gone_s)
    for name, schedule in schedules.items():
        known, rule = marks.get(name), schedule.recurrence.rule
        if known is None or known.rule != rule:
            found[name] = Mark(now_s, rule)
        else:
            found[name] = replace(known, gone_s=None, done_s=_not_ahead(known.done_s, now_s))
    return found


def _not_ahead(done_s: int, now_s: int) -> int:
    return now_s if done_s - now_s > AHEAD_S else done_s


def ahead(marks: Marks, *, now_s: int) -> Iterable[str]:
    """Yield the schedules whose marks are of a clock that was wrong."""
    return (name for name, mark in marks.items() if mark.done_s - now_s > AHEAD_S)
