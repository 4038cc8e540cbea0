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
from typing import Any

from broker.topology.model import Topology
from broker.topology.objects import (
    BINDING,
    EXCHANGE,
    POLICY,
    QUEUE,
    Identity,
    Object,
    binding_identity,
)
from broker.topology.policies import escape
from broker.topology.source import DataPath
from broker.units import milliseconds

PATH: DataPath = ("schedules",)
# Above whatever people give a policy for all queues: with a time to live or a delivery limit the
# token would be lost, and what has been published with it.
PRIORITY = 1000
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
    yield Object(
        Identity(EXCHANGE, (token.exchange,)),
        {
            "type": "direct",
            "durable": True,
            "auto_delete": False,
            "internal": False,
            "arguments": {},
        },
        PATH,
    )
    yield _queue(token.queue, {"x-single-active-consumer": True})
    yield _queue(token.state, {})
    yield _binding(token, token.queue, TOKEN_KEY)
    yield _binding(token, token.queue, STATE_KEY)
    yield _binding(token, token.state, STATE_KEY)
    # A death of the leader counts as a failed delivery, of which there may be any number.
    yield _policy(
        token.queue,
        {"delivery-limit": -1, "consumer-timeout": milliseconds(CONSUMER_TIMEOUT)},
    )
    yield _policy(token.state, {"delivery-limit": -1, "max-length": 1, "overflow": "drop-head"})


def is_token(token: Token, identity: Identity) -> bool:
    """Return whether an object is one of these."""
    if identity.kind == BINDING:
        return identity.name[0] == token.exchange
    return identity.name[0] in (token.queue, token.state)


def _queue(name: str, arguments: dict[str, Any]) -> Object:
    return Object(
        Identity(QUEUE, (name,)),
        {"type": "quorum", "durable": True, "auto_delete": False, "arguments": arguments},
        PATH,
    )


def _binding(token: Token, queue: str, key: str) -> Object:
    identity = binding_identity(
        source=token.exchange, kind="queue", destination=queue, routing_key=key, arguments={}
    )
    return Object(identity, {}, PATH)


def _policy(queue: str, definition: dict[str, Any]) -> Object:
    return Object(
        Identity(POLICY, (queue,)),
        {
            "apply-to": "quorum_queues",
            "pattern": f"^{escape(queue)}$",
            "priority": PRIORITY,
            "definition": definition,
        },
        PATH,
    )
