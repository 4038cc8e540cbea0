"""The stream that carries cancellations to workers, as objects of RabbitMQ; pure.

Every worker reads all of it, each from where it wants: what was cancelled while a worker was away
is there when it comes back. What is in it: `broker.cancellation`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from broker.topology.model import Topology
from broker.topology.objects import Identity, Object
from broker.topology.own import Own, belongs
from broker.topology.settings import STREAM

OWN = Own(("workers",))
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
    yield OWN.exchange(names.exchange, "fanout")
    yield OWN.queue(names.queue, {"x-stream-max-segment-size-bytes": SEGMENT_BYTES}, type_=STREAM)
    yield OWN.binding(names.exchange, "queue", names.queue)
    # With another length workers would miss what was cancelled.
    yield OWN.policy(
        names.queue,
        {"max-age": f"{KEPT_FOR.days}D", "max-length-bytes": MOST_BYTES},
        type_=STREAM,
    )


def is_cancellations(names: Cancellations, identity: Identity) -> bool:
    """Return whether an object is one of these."""
    return belongs(identity, exchange=names.exchange, others=frozenset({names.queue}))
