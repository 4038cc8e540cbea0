"""The ticks of a topology's schedules: which are due, their messages, what became of them."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from broker.contracts import Job, contract_of
from broker.culprit import refusal_of
from broker.errors import InvalidInput, MessageTooLarge, OutcomeUnknown, RabbitryError
from broker.message import Message, job_message
from broker.observer import name_of
from broker.receipt import Receipt, Routed
from broker.topology import Topology
from consumers.schedule.due import Due, due, tick_id
from consumers.schedule.marks import Mark, Marks

logger = logging.getLogger("rabbitry.schedule")

# At most so many ticks of one schedule are under way, and made again where their leader dies.
TOGETHER = 100
# RabbitMQ closes the channel of who publishes where it must not, which ends a term. So long
# nothing more is published there.
REFUSED_S = 60.0
_CLOSED = re.compile(r"closed the channel: (\d+) (.*)", re.DOTALL)


class Observer(Protocol):
    """Who counts; every method must be quick."""

    def ticked(self, schedule: str, outcome: str, late_s: float) -> None:
        """Count a tick.

        Args:
            schedule: its name.
            outcome: ``routed``, ``unroutable``, ``rejected`` or ``invalid``.
            late_s: seconds from when it fell due until its outcome was known.
        """

    def skipped(self, schedule: str, count: int) -> None:
        """Count ticks that fell due in an outage and are not published."""

    def leads(self, leading: bool) -> None:
        """Note that the scheduler leads, or no longer."""


class Sender(Protocol):
    """What publishes."""

    def publish(self, message: Message, *, exchange: str, routing_key: str) -> Receipt:
        """Publish a message."""


@dataclass(slots=True)
class Tick:
    """One tick.

    Attributes:
        schedule: its name.
        due_s: when it fell due.
        receipt: of its publish, or None where nothing was sent.
        refusal: why nothing was sent.
    """

    schedule: str
    due_s: int
    receipt: Receipt | None = None
    refusal: RabbitryError | None = None

    @property
    def id(self) -> str:
        """The id of its message."""
        return tick_id(self.schedule, self.due_s)

    @property
    def outcome(self) -> Routed | RabbitryError | None:
        """What became of it; None while that is not known."""
        return self.refusal if self.receipt is None else self.receipt.outcome


@dataclass(frozen=True, slots=True)
class Batch:
    """What is due now.

    Attributes:
        ticks: what to publish, in order of their schedules.
        dues: by schedule, what fell due.
    """

    ticks: list[Tick] = field(default_factory=list)
    dues: dict[str, Due] = field(default_factory=dict)

    @property
    def receipts(self) -> list[Receipt]:
        """The receipts of what was sent."""
        return [tick.receipt for tick in self.ticks if tick.receipt is not None]


class Ticks:
    """Makes the ticks of a topology's schedules.

    Args:
        topology: says what recurs.
        clock: seconds since 1970-01-01 UTC.
        observer: counts.
    """

    def __init__(
        self, topology: Topology, *, clock: Callable[[], float], observer: Observer | None = None
    ) -> None:
        self._schedules = topology.schedules
        self._recurrences = {name: each.recurrence for name, each in self._schedules.items()}
        self._contracts = {
            name: contract_of(topology, each.job) for name, each in self._schedules.items()
        }
        self._clock = clock
        self._observer = observer
        self._next: dict[str, tuple[int, float]] = {}
        self._refused: dict[str, tuple[float, RabbitryError]] = {}

    def next_s(self, marks: Marks, schedule: str) -> float:
        """Return when a schedule is due next; infinity for never."""
        done_s = marks[schedule].done_s
        known = self._next.get(schedule)
        if known is None or known[0] != done_s:
            next_s = next(self._recurrences[schedule].times(done_s), None)
            known = self._next[schedule] = (done_s, float("inf") if next_s is None else next_s)
        return known[1]

    def first_s(self, marks: Marks) -> float:
        """Return when the first schedule is due."""
        return min(self.next_s(marks, name) for name in self._schedules)

    def due(self, marks: Marks, *, now_s: int) -> Batch:
        """Return what is due."""
        batch = Batch()
        for name, schedule in self._schedules.items():
            if self.next_s(marks, name) > now_s:
                continue
            found = due(
                self._recurrences[name],
                done_s=marks[name].done_s,
                now_s=now_s,
                catch_up=schedule.catch_up,
            )
            batch.dues[name] = found
            batch.ticks.extend(Tick(name, due_s) for due_s in found.ticks[:TOGETHER])
        return batch

    def publish(self, batch: Batch, sender: Sender) -> None:
        """Publish the ticks of a batch."""
        for tick in batch.ticks:
            until, refusal = self._refused.get(tick.schedule, (0.0, None))
            if refusal is not None and time.monotonic() < until:
                tick.refusal = refusal
                continue
            contract = self._contracts[tick.schedule]
            job = Job(contract.name, kwargs=self._schedules[tick.schedule].arguments, id=tick.id)
            try:
                message = job_message(contract, job, published_ms=round(self._clock() * 1000))
                tick.receipt = sender.publish(
                    message, exchange=contract.exchange, routing_key=contract.routing_key
                )
            except InvalidInput as exc:
                tick.refusal = exc

    def note_refusals(self, batch: Batch, error: RabbitryError) -> None:
        """Remember what RabbitMQ closed the channel for: it would do so again.

        Args:
            batch: what was published on it.
            error: how it ended.
        """
        closed = _CLOSED.search(str(error))
        if closed is None:
            return
        code, text = int(closed[1]), closed[2]
        for tick in batch.ticks:
            receipt = tick.receipt
            if receipt is None or isinstance(receipt.outcome, Routed):
                continue
            too_large = isinstance(getattr(receipt.outcome, "__cause__", None), MessageTooLarge)
            if too_large or _is_named(receipt, text):
                refusal = refusal_of(receipt, code, text)
                self._refused[tick.schedule] = (time.monotonic() + REFUSED_S, refusal)

    def done(self, batch: Batch, marks: Marks) -> dict[str, Mark]:
        """Return the marks as they are once a batch is settled, and tell what became of it."""
        found = dict(marks)
        ended: dict[str, int] = {}
        for tick in batch.ticks:
            mark, outcome = found[tick.schedule], tick.outcome
            if outcome is None or isinstance(outcome, OutcomeUnknown):
                logger.warning("%s: %s; it is published again", tick.id, outcome)
                # What follows must not overtake it.
                ended[tick.schedule] = -1
            if ended.get(tick.schedule) == -1:
                continue
            word = self._tell(tick, outcome)
            ended[tick.schedule] = tick.due_s
            found[tick.schedule] = replace(mark, done_s=tick.due_s, outcome=word)
        for name, each in batch.dues.items():
            if ended.get(name) == -1 or len(each.ticks) > TOGETHER:
                continue
            assert each.until_s is not None
            found[name] = replace(found[name], done_s=each.until_s)
            if each.skipped:
                logger.warning("%s: %d ticks of an outage are skipped", name, each.skipped)
                if self._observer is not None:
                    self._observer.skipped(name, each.skipped)
        return found

    def _tell(self, tick: Tick, outcome: object) -> str:
        late_s = self._clock() - tick.due_s
        if isinstance(outcome, Routed):
            word = "routed"
            logger.info("%s: published %.3f s after it fell due", tick.id, late_s)
        else:
            word = "invalid" if isinstance(outcome, InvalidInput) else name_of(outcome)
            logger.error("%s: %s", tick.id, outcome)
        if self._observer is not None:
            self._observer.ticked(tick.schedule, word, late_s)
        return word


def _is_named(receipt: Receipt, text: str) -> bool:
    if f"exchange '{receipt.exchange}'" not in text:
        return False
    # Topic permissions are refused for a routing key.
    return "topic '" not in text or f"topic '{receipt.routing_key}'" in text
