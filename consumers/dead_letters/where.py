"""Which queues of a topology hold dead letters; pure."""

from __future__ import annotations

from broker.errors import InvalidInput
from broker.topology import Topology


def dead_letter_queues(topology: Topology) -> list[str]:
    """Return the queues that dead-letter exchanges lead to and that no worker consumes.

    A queue that a worker consumes is on the way of messages that are tried again.

    Raises:
        InvalidInput: there is none.
    """
    exchanges = {each.dead_letter.exchange for each in topology.queues.values() if each.dead_letter}
    definitions = [
        *(each.definition for each in topology.policies.values()),
        *(each.definition for each in topology.operator_policies.values()),
    ]
    for definition in definitions:
        name = definition.get("dead-letter-exchange", definition.get("dead_letter_exchange"))
        if isinstance(name, str):
            exchanges.add(name)
    grown = True
    while grown:
        further = {
            name
            for name, exchange in topology.exchanges.items()
            if any(binding.exchange in exchanges for binding in exchange.bindings)
        }
        grown = not further <= exchanges
        exchanges |= further
    consumed = {queue for worker in topology.workers.values() for queue in worker.queues}
    found = [
        name
        for name, queue in topology.queues.items()
        if name not in consumed and any(binding.exchange in exchanges for binding in queue.bindings)
    ]
    if not found:
        raise InvalidInput(
            "the topology has no dead-letter queue: none that a `dead_letter: {exchange: …}` leads"
            " to and no worker consumes; name one with --queue"
        )
    return found
