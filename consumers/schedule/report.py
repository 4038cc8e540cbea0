"""What the schedules of a topology have come to, as RabbitMQ knows it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from broker.connection import Address, connect, translated
from broker.errors import BrokerUnavailable, InvalidMessage, MissingOnBroker
from broker.management import Management
from broker.recurrence import text_of
from broker.topology import Topology
from broker.topology.token import Token, token_of
from consumers.schedule.marks import State, adapted, decode

# Another reader has the copy in its hands for a moment.
_TRIES, _TRY_S = 5, 0.1


@dataclass(frozen=True, slots=True)
class Leadership:
    """Who leads, and what the leader wrote last.

    Attributes:
        state: the latest token, or None before the first.
        leader: the consumer tag of who leads now, or None for nobody.
        schedulers: how many run, or None where the management API does not say; then the leader
            is who wrote last.
    """

    state: State | None
    leader: str | None
    schedulers: int | None

    def __str__(self) -> str:
        if self.leader is None:
            return "Nobody leads: `rabbitry schedule run` starts a scheduler."
        wrote = f" and wrote at {text_of(self.state.written_s)}" if self.state else ""
        if self.schedulers is None:
            return f"{self.leader} led last{wrote}; who leads now is not to be read."
        return f"{self.leader} leads{wrote}; {self.schedulers - 1} more stand by."


@dataclass(frozen=True, slots=True)
class Line:
    """One schedule.

    Attributes:
        name, job: of the schedule, and what it publishes.
        recurs: when, as the file says it.
        catch_up: the rule for outages.
        last_s: when the last tick fell due that is done, or None.
        outcome: of that tick, or None.
        next_s: when the next one falls due, or None for never.
    """

    name: str
    job: str
    recurs: str
    catch_up: str
    last_s: int | None
    outcome: str | None
    next_s: int | None

    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "name": self.name,
            "job": self.job,
            "recurs": self.recurs,
            "catch_up": self.catch_up,
            "last": None if self.last_s is None else text_of(self.last_s),
            "outcome": self.outcome,
            "next": None if self.next_s is None else text_of(self.next_s),
        }

    def cells(self) -> tuple[Any, ...]:
        """Return it as a row of a table."""
        return tuple(self.document().values())


def lines(topology: Topology, found: Leadership, *, now_s: int | None = None) -> Iterator[Line]:
    """Yield the schedules of a topology in the file's order.

    Args:
        topology: says what recurs.
        found: what RabbitMQ knows of it.
        now_s: the time, seconds since 1970-01-01 UTC; the clock's, when not given.
    """
    now_s = int(time.time()) if now_s is None else now_s
    written = found.state.marks if found.state is not None else {}
    marks = adapted(written, topology.schedules, now_s=now_s)
    for name, schedule in topology.schedules.items():
        mark = marks[name]
        recurrence = schedule.recurrence
        # The mark of a schedule that was never due says when it came.
        last_s = mark.done_s if mark.outcome is not None else None
        next_s = next(recurrence.times(max(mark.done_s, now_s)), None)
        yield Line(
            name, schedule.job, recurrence.rule, schedule.catch_up, last_s, mark.outcome, next_s
        )


def leadership(topology: Topology, address: Address) -> Leadership:
    """Ask RabbitMQ who leads, and what was written last.

    Raises:
        MissingOnBroker: the queues of the token are missing.
        BrokerUnavailable: see `broker.errors`.
    """
    token = token_of(topology)
    if token is None:
        return Leadership(None, None, 0)
    state, led = _over_amqp(token, address)
    try:
        with Management(address) as management:
            consumers = management.get("consumers", address.vhost_name)
    except BrokerUnavailable:
        return Leadership(state, state.leader if state is not None and led else None, None)
    ours = [each for each in consumers if each["queue"]["name"] == token.queue]
    active = [each["consumer_tag"] for each in ours if each.get("active")]
    return Leadership(state, active[0] if active else None, len(ours))


def _over_amqp(token: Token, address: Address) -> tuple[State | None, bool]:
    from amqp.exceptions import NotFound

    connection = connect(address)
    try:
        with translated(address):
            channel = connection.default_channel
            try:
                declared = channel.queue_declare(token.queue, passive=True)
                return _latest(channel, token), declared.consumer_count > 0
            except NotFound as exc:
                raise MissingOnBroker(
                    f"virtual host {address.vhost_name!r} lacks what schedulers share"
                    f" ({exc.reply_text}); `rabbitry topology apply` makes it"
                ) from exc
    finally:
        connection.release()


def _latest(channel: Any, token: Token) -> State | None:
    """Read the copy of the latest token and leave it where it is."""
    for _ in range(_TRIES):
        message = channel.basic_get(token.state)
        if message is None:
            time.sleep(_TRY_S)
            continue
        channel.basic_reject(message.delivery_tag, requeue=True)
        try:
            content = message.body
            return decode(content if isinstance(content, bytes) else str(content).encode())
        except InvalidMessage:
            return None
    return None
