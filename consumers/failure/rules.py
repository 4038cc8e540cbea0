"""How often a queue delivers a message that fails, and where its dead letters go."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from broker.topology import Topology
from broker.topology.compile import compile_topology
from broker.topology.effective import DEFAULTS, Policies, find, settings_of, value_of
from broker.topology.ladder import longest_wait
from broker.topology.objects import QUEUE
from broker.topology.retry import Schedule, schedule_of
from broker.topology.structure import Queue
from broker.units import milliseconds

_QUORUM = "quorum"


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for the messages of one queue.

    Attributes:
        limit: how many redeliveries there are after the first; None for no end. 0 where RabbitMQ
            does not count them: nothing would end a message that kills its process.
        exchange: for dead letters; None where there is none.
        routing_key: of dead letters; None keeps the message's own.
        timeout_s: after how long RabbitMQ takes a message back from a consumer, where it does so
            by queue; else None.
        waits: before each redelivery, as the file asks for them; None where they come at once.
    """

    limit: int | None
    exchange: str | None
    routing_key: str | None
    timeout_s: float | None
    waits: Schedule | None = None


class Rules:
    """The rules of a topology's queues, policies included.

    Args:
        topology: the application's.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology

    def of(self, queue: str) -> Rule:
        """Return the rule of a queue of the topology."""
        return self._rules[queue]

    @cached_property
    def _rules(self) -> dict[str, Rule]:
        objects = compile_topology(self._topology, secrets=False).objects
        policies = Policies(objects)
        rules = {}
        for name in self._topology.queues:
            there = find(objects, QUEUE, name)
            assert there is not None
            settings = settings_of(there, policies)
            counts = there.attributes["type"] == _QUORUM
            timeout_ms = value_of(
                settings, "consumer-timeout", DEFAULTS[_QUORUM]["consumer-timeout"]
            )
            exchange = value_of(settings, "dead-letter-exchange")
            key = value_of(settings, "dead-letter-routing-key")
            rules[name] = Rule(
                schedule_of(settings).limit if counts else 0,
                exchange if isinstance(exchange, str) else None,
                key if isinstance(key, str) else None,
                timeout_ms / 1000 if counts and isinstance(timeout_ms, int) else None,
                _waits(self._topology.queues[name]),
            )
        return rules


def _waits(queue: Queue) -> Schedule | None:
    longest = longest_wait(queue)
    if queue.retry is None or longest is None:
        return None
    return Schedule(milliseconds(queue.retry.delay), milliseconds(longest), queue.retry.limit)
