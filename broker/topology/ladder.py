"""The delay ladder as objects of RabbitMQ; pure. What it is for: `broker.delays`.

It is made for the file's `delays:`, and for its `retry:` where RabbitMQ is older than 4.3 and
delays nothing itself.

Each rung is a headers exchange and a queue of the same name. The exchange sends a message into
the queue where the message's header for this rung is true, and on to the next rung where it is
false; the queue lets it go to the next rung when its time is over. A message for which a rung is
missing goes nowhere and says so: it never passes by, which would be early.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from broker.delays import (
    Ladder,
    due_name,
    lost_name,
    rung_name,
    rungs_for,
    to_header,
    wait_header,
)
from broker.message import SHORT_STRING_BYTES
from broker.topology.delays import LONGEST
from broker.topology.model import Topology
from broker.topology.objects import POLICY, Identity, Object
from broker.topology.own import Own
from broker.topology.policies import escape
from broker.topology.settings import QUORUM, RETRY_SINCE, known
from broker.topology.structure import Queue

OWN = Own(("delays",))


def ladder_of(topology: Topology) -> Ladder | None:
    """Return the ladder of a topology, or None where its file has none."""
    delays = topology.delays
    if delays is None:
        return None
    queues = delays.queues
    if queues is None:
        queues = [name for name, queue in topology.queues.items() if queue.type != "stream"]
    return Ladder(topology.name, delays.max, _led_to(queues))


def retry_ladder(topology: Topology) -> Ladder | None:
    """Return the ladder on which a RabbitMQ before 4.3 holds what failed, or None without any.

    It leads to the queues that have a `retry:`, and is as long as the longest of their delays.
    """
    waits = {name: wait for name, queue in topology.queues.items() if (wait := longest_wait(queue))}
    queues = _led_to(waits)
    if not queues:
        return None
    return Ladder(topology.name, min(LONGEST, max(waits[name] for name in queues)), queues)


def longest_wait(queue: Queue) -> timedelta | None:
    """Return the longest delay between two attempts of a queue; None where none is asked for."""
    if queue.retry is None or queue.type != QUORUM:
        return None
    # Without a longest wait all are as long as the first.
    return queue.retry.max_delay or queue.retry.delay


def ladders_of(topology: Topology, requires: str | None) -> list[Ladder]:
    """Return the ladders that a topology needs; one set of rungs serves them all.

    Args:
        topology: the topology.
        requires: the least version of RabbitMQ; None is the newest.
    """
    retries = None if known(RETRY_SINCE, requires) else retry_ladder(topology)
    return [ladder for ladder in (ladder_of(topology), retries) if ladder is not None]


def ladder_objects(topology: Topology, requires: str | None = None) -> Iterator[Object]:
    """Yield the objects of a topology's ladders; none where it needs none.

    Args:
        topology: the topology.
        requires: the least version of RabbitMQ; None is the newest.
    """
    ladders = ladders_of(topology, requires)
    if ladders:
        yield from rungs(topology.name, rungs_for(max(each.longest for each in ladders)))
        yield from ends(topology.name, frozenset().union(*(each.queues for each in ladders)))


def _led_to(queues: Iterable[str]) -> frozenset[str]:
    # AMQP's short strings hold 255 bytes, and the queue's name is part of a header's.
    return frozenset(name for name in queues if len(to_header(name).encode()) <= SHORT_STRING_BYTES)


def rungs(owner: str, seconds: Iterable[int]) -> Iterator[Object]:
    """Yield all of a ladder but the bindings to the queues that it leads to."""
    due, lost = due_name(owner), lost_name(owner)
    below = due
    for rung in seconds:
        name = rung_name(owner, rung)
        yield OWN.exchange(name, "headers")
        yield OWN.queue(
            name,
            {
                # Arguments, since they are what the rung is: its name says its time.
                "x-message-ttl": rung * 1000,
                "x-dead-letter-exchange": below,
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        )
        header = wait_header(rung)
        yield _binding(name, "queue", name, {header: True})
        yield _binding(name, "exchange", below, {header: False})
        below = name
    yield OWN.exchange(due, "headers", {"alternate-exchange": lost})
    yield OWN.exchange(lost, "fanout")
    yield OWN.queue(lost)
    yield OWN.binding(lost, "queue", lost)
    # One with a time to live would make messages early, one with a length refuse or drop them.
    yield OWN.policy(
        policy_name(owner), {"overflow": "reject-publish"}, pattern=rung_pattern(owner)
    )


def ends(owner: str, queues: Iterable[str]) -> Iterator[Object]:
    """Yield the bindings to the queues that a ladder leads to."""
    for queue in sorted(queues):
        yield _binding(due_name(owner), "queue", queue, {to_header(queue): True})


def rung_pattern(owner: str) -> str:
    """Return an expression that matches the names of rungs, whatever their number."""
    return rf"{escape(owner)}\.delays\.[0-9]+s"


def policy_name(owner: str) -> str:
    """Return the name of the policy that keeps others off the rungs."""
    return f"{owner}.delays"


def belongs_to(owner: str, identity: Identity) -> bool:
    """Return whether an object is part of the ladder of a topology of this name."""
    prefix = f"{owner}.delays."
    if identity.kind == POLICY:
        return identity.name[0] == policy_name(owner)
    return identity.name[0].startswith(prefix)


def _binding(source: str, kind: str, destination: str, headers: Mapping[str, Any]) -> Object:
    return OWN.binding(source, kind, destination, arguments={"x-match": "all", **headers})
