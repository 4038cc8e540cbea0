"""What schedulers need on RabbitMQ to agree on one that leads; pure.

A queue with a single active consumer holds a token: who is delivered the token leads. The token
says what has been published already, so that the next leader goes on from there. A copy of the
latest one lies in a second queue, for people to read; the token itself is always in somebody's
hands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from broker.topology.model import Topology
from broker.topology.objects import Identity, Object
from broker.topology.own import Own, belongs
from broker.units import milliseconds

OWN = Own(("schedules",))
# The leader renews its token every minute. RabbitMQ's own 30 minutes would do, but not for a
# machine that sleeps: it would lose a lead that nobody else wants.
CONSUMER_TIMEOUT = timedelta(days=1)

TOKEN_KEY = "token"  # noqa: S105  (a routing key)
STATE_KEY = "state"


@dataclass(frozen=True, slots=True)
class Token:
    """The names of the objects of one topology's schedules.

    Attributes:
        owner: the name of the topology. Two of them in one virtual host share nothing.
    """

    owner: str

    @property
    def exchange(self) -> str:
        """Where the token is published: with `TOKEN_KEY` for the schedulers alone, with
        `STATE_KEY` also for people."""
        return f"{self.owner}.schedule"

    @property
    def queue(self) -> str:
        """The queue whose consumer leads."""
        return f"{self.owner}.schedule"

    @property
    def state(self) -> str:
        """The queue that holds a copy of the latest token."""
        return f"{self.owner}.schedule.state"


def token_of(topology: Topology) -> Token | None:
    """Return the names of a topology's token, or None where it has no schedules."""
    return Token(topology.name) if topology.schedules else None


def token_objects(topology: Topology) -> Iterator[Object]:
    """Yield what the schedules of a topology need; nothing where it has none."""
    token = token_of(topology)
    if token is None:
        return
    yield OWN.exchange(token.exchange, "direct")
    yield OWN.queue(token.queue, {"x-single-active-consumer": True})
    yield OWN.queue(token.state)
    yield OWN.binding(token.exchange, "queue", token.queue, routing_key=TOKEN_KEY)
    yield OWN.binding(token.exchange, "queue", token.queue, routing_key=STATE_KEY)
    yield OWN.binding(token.exchange, "queue", token.state, routing_key=STATE_KEY)
    # A death of the leader counts as a failed delivery, of which there may be any number: with a
    # limit the token would be lost, and what has been published with it.
    yield OWN.policy(
        token.queue,
        {"delivery-limit": -1, "consumer-timeout": milliseconds(CONSUMER_TIMEOUT)},
    )
    yield OWN.policy(token.state, {"delivery-limit": -1, "max-length": 1, "overflow": "drop-head"})


def is_token(token: Token, identity: Identity) -> bool:
    """Return whether an object is one of these."""
    names = frozenset({token.queue, token.state})
    return belongs(identity, exchange=token.exchange, others=names)
