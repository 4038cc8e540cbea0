"""The stream that carries cancellations to workers, as objects of RabbitMQ; pure.

Every worker reads all of it, each from where it wants: what was cancelled while a worker was away
is there when it comes back. What is in it: `broker.cancellation`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

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

PATH: DataPath = ("workers",)
# Above whatever people give a policy for all queues: with another length workers would miss what
# was cancelled.
PRIORITY = 1000
# RabbitMQ drops whole segments, by age and by size. Of 250 bytes a cancellation the stream holds
# some 33,000, which a worker that starts has read in a second or two.
KEPT_FOR = timedelta(days=1)
MOST_BYTES = 8 * 2**20
SEGMENT_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Cancellations:
    """The names of the objects of one topology's cancellations.

    Attributes:
        owner: the name of the topology. Two of them in one virtual host share nothing.
    """

    owner: str

    @property
    def exchange(self) -> str:
        """Where cancellations are published."""
        return f"{self.owner}.cancellations"

    @property
    def queue(self) -> str:
        """The stream that workers read."""
        return f"{self.owner}.cancellations"


def cancellations_of(topology: Topology) -> Cancellations | None:
    """Return the names of a topology's cancellations, or None where nobody would read them."""
    return Cancellations(topology.name) if topology.workers else None


def cancellation_objects(topology: Topology) -> Iterator[Object]:
    """Yield what the cancellations of a topology need; nothing where it has no workers."""
    names = cancellations_of(topology)
    if names is None:
        return
    yield Object(
        Identity(EXCHANGE, (names.exchange,)),
        {
            "type": "fanout",
            "durable": True,
            "auto_delete": False,
            "internal": False,
            "arguments": {},
        },
        PATH,
    )
    yield Object(
        Identity(QUEUE, (names.queue,)),
        {
            "type": "stream",
            "durable": True,
            "auto_delete": False,
            "arguments": {"x-stream-max-segment-size-bytes": SEGMENT_BYTES},
        },
        PATH,
    )
    yield Object(
        binding_identity(
            source=names.exchange,
            kind="queue",
            destination=names.queue,
            routing_key="",
            arguments={},
        ),
        {},
        PATH,
    )
    yield Object(
        Identity(POLICY, (names.queue,)),
        {
            "apply-to": "streams",
            "pattern": f"^{escape(names.queue)}$",
            "priority": PRIORITY,
            "definition": {"max-age": f"{KEPT_FOR.days}D", "max-length-bytes": MOST_BYTES},
        },
        PATH,
    )


def is_cancellations(names: Cancellations, identity: Identity) -> bool:
    """Return whether an object is one of these."""
    if identity.kind == BINDING:
        return identity.name[0] == names.exchange
    return identity.name[0] == names.queue
