"""Delays: how a job waits on RabbitMQ until it is due; pure, the time is an argument.

A ladder of queues, its rungs, hold messages for 1, 2, 4, 8 … seconds. A delay is the sum of some
of them, and the headers of a message say which: at each rung it waits or passes by, and below the
last it goes to the queues that its headers name. Its routing key, priority and body stay what
they are. `broker.topology.ladder` makes the objects; ``docs/why/delays.md`` gives the reasons.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from broker.errors import InvalidDelay
from broker.message import ATTEMPT, DELIVERY_COUNT, ORIGIN, Message
from broker.units import format_duration

if TYPE_CHECKING:
    from broker.topology import Topology
    from broker.topology.route import Router

# Headers, which RabbitMQ compares: whether a message waits on a rung, and which queues it is for.
WAIT_PREFIX = "rabbitry-wait-"
TO_PREFIX = "rabbitry-to:"
_SECOND = timedelta(seconds=1)
# What RabbitMQ, a ladder or another broker wrote; of no use to the next queue.
_TRACES = (WAIT_PREFIX, TO_PREFIX, "x-death", "x-first-death-", "x-last-death-")
_COUNTS = (DELIVERY_COUNT, "x-acquired-count", ATTEMPT, ORIGIN)


# -- names ----------------------------------------------------------------------------


def rungs_for(longest: timedelta) -> tuple[int, ...]:
    """Return the rungs, in seconds, that delays up to the longest need."""
    return tuple(1 << power for power in range(max(1, math.ceil(longest / _SECOND).bit_length())))


def rung_name(owner: str, seconds: int) -> str:
    """Return the name of a rung, which its exchange and its queue share."""
    return f"{owner}.delays.{seconds}s"


def due_name(owner: str) -> str:
    """Return the name of the exchange at the foot of the ladder."""
    return f"{owner}.delays.due"


def lost_name(owner: str) -> str:
    """Return the name of where messages end whose queue is gone when they are due."""
    return f"{owner}.delays.lost"


def is_of_ladder(owner: str, exchange: str) -> bool:
    """Return whether an exchange is part of a ladder: the name on what has been there.

    It is that of the rung below the last one that held the message, or the foot's.
    """
    return exchange.startswith(f"{owner}.delays.")


def wait_header(seconds: int) -> str:
    """Return the header that says whether a message waits on a rung."""
    return f"{WAIT_PREFIX}{seconds}s"


def to_header(queue: str) -> str:
    """Return the header that says that a message is for a queue."""
    return f"{TO_PREFIX}{queue}"


# -- when -----------------------------------------------------------------------------


def wait_s(*, delay_s: float | None, eta: datetime | None, now_s: float, what: str) -> float:
    """Return how long something is to wait, in seconds; 0 where it is due.

    Args:
        delay_s: seconds from now.
        eta: the time instead, with a time zone.
        now_s: seconds since 1970-01-01 UTC.
        what: is to wait, for the error.

    Raises:
        InvalidDelay: both are given, the delay is no number, or the time has no zone.
    """
    if delay_s is not None and eta is not None:
        raise InvalidDelay(f"{what} has both a delay and an eta; give one of them")
    if eta is not None:
        if not isinstance(eta, datetime) or eta.utcoffset() is None:
            raise InvalidDelay(
                f"the eta of {what} must be a datetime with a time zone, not {eta!r};"
                " datetime.now(timezone.utc) has one"
            )
        delay_s = eta.timestamp() - now_s
    elif delay_s is None:
        return 0.0
    elif isinstance(delay_s, bool) or not isinstance(delay_s, (int, float)):
        raise InvalidDelay(f"the delay of {what} is a number of seconds, not {delay_s!r}")
    elif not 0 <= delay_s < math.inf:
        raise InvalidDelay(f"the delay of {what} must be 0 or more seconds, not {delay_s!r}")
    return max(0.0, float(delay_s))


# -- where ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Ladder:
    """The ladder of a topology.

    Attributes:
        owner: the topology's name.
        longest: delay that it takes.
        queues: that delayed messages may go to.
    """

    owner: str
    longest: timedelta
    queues: frozenset[str]

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """How long each rung holds a message, in seconds, the shortest first."""
        return rungs_for(self.longest)

    def delayed(
        self, message: Message, *, wait_s: float, queues: Sequence[str], cut: bool = False
    ) -> tuple[Message, str]:
        """Return a message as it is to be published, and the exchange: that of its first rung.

        Of a longer ladder than RabbitMQ has that exchange does not exist: the producer gets an
        error, and never a job that comes early.

        Args:
            message: to be delayed; its expiration is taken off, since RabbitMQ would let it go
                down the ladder early.
            wait_s: seconds to wait, rounded up to whole ones.
            queues: where it goes then.
            cut: wait as long as the ladder can where that is not long enough.

        Raises:
            InvalidDelay: the delay is too long, or the ladder does not lead to a queue.
        """
        if wait_s > self.longest.total_seconds():
            if not cut:
                asked = format_duration(timedelta(seconds=math.ceil(min(wait_s, 1e12))))
                raise InvalidDelay(
                    f"message {message.id} is to wait {asked}, longer than the"
                    f" {format_duration(self.longest)} of the topology's delays: max;"
                    " raise that, and `rabbitry topology apply`"
                )
            wait_s = self.longest.total_seconds()
        for queue in queues:
            if queue not in self.queues:
                raise InvalidDelay(
                    f"message {message.id} cannot wait for queue {queue!r}, which is not one of"
                    " those that the topology's delays lead to"
                )
        seconds = max(1, math.ceil(wait_s))
        headers = without_traces(message.headers)
        rungs = [rung for rung in self.rungs if rung <= seconds]
        headers |= {wait_header(rung): bool(seconds & rung) for rung in rungs}
        headers |= {to_header(queue): True for queue in queues}
        properties = {k: v for k, v in message.properties.items() if k != "expiration"}
        delayed = replace(message, headers=headers, properties=properties)
        return delayed, rung_name(self.owner, rungs[-1])


class Delays:
    """Where the delayed jobs of a topology go.

    Args:
        topology: says which queues and exchanges there are, and how long a delay may be.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._routes: dict[tuple[str, str], tuple[str, ...]] = {}

    @cached_property
    def ladder(self) -> Ladder:
        """The ladder. Raises InvalidDelay where the file has none."""
        from broker.topology.ladder import ladder_of

        ladder = ladder_of(self._topology)
        if ladder is None:
            raise InvalidDelay(
                f"topology {self._topology.name!r} has no delays; add `delays: {{max: 30d}}` to"
                " its file, and `rabbitry topology apply`"
            )
        return ladder

    def queues_of(self, exchange: str, routing_key: str) -> tuple[str, ...]:
        """Return the queues that a message goes to, none where it is unroutable.

        Args:
            exchange: where it would be published, "" for the default exchange.
            routing_key: its routing key.

        Raises:
            InvalidDelay: only RabbitMQ can tell where it goes.
        """
        there = exchange, routing_key
        if there not in self._routes:
            found = self._router.route(exchange, routing_key)
            if found.unknown:
                raise InvalidDelay(
                    f"where exchange {exchange!r} sends a job cannot be told in advance, which a"
                    f" delay needs: {found.unknown[0]}"
                )
            self._routes[there] = found.queues
        return self._routes[there]

    @cached_property
    def _router(self) -> Router:
        from broker.topology.route import Router

        return Router.of(self._topology)


def without_traces(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return headers without what an earlier delay or delivery left in them."""
    return {
        name: value for name, value in headers.items() if not name.startswith(_TRACES + _COUNTS)
    }


def was_delayed(headers: Mapping[str, Any]) -> bool:
    """Return whether a message comes from a ladder."""
    return any(name.startswith(TO_PREFIX) for name in headers)
