"""Why RabbitMQ may have refused a message: which of the queues that it goes to can be full."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from broker.topology import Topology

if TYPE_CHECKING:
    from broker.topology.route import Router

_LIMITS = ("max-length", "max-length-bytes")


class Refusals:
    """Tells from the topology what a `basic.nack` is likely about; RabbitMQ says nothing with it.

    Args:
        topology: with the exchanges, queues and policies.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._known: dict[tuple[str, str], str | None] = {}

    def why(self, exchange: str, routing_key: str) -> str | None:
        """Return the likely reason in a sentence; None where the topology knows none.

        Args:
            exchange, routing_key: where the message was published.
        """
        there = exchange, routing_key
        if there not in self._known:
            self._known[there] = self._find(exchange, routing_key)
        return self._known[there]

    def _find(self, exchange: str, routing_key: str) -> str | None:
        from broker.topology.effective import find
        from broker.topology.objects import QUEUE

        limited = []
        for landing in self._router.route(exchange, routing_key).landings:
            queue = find(self._router.objects, QUEUE, landing.queue)
            if queue is None:
                continue
            settings = self._router.settings(queue)
            overflow = settings.get("overflow")
            limits = [
                f"{name} {settings[name].holds.value} by {settings[name].holds.origin}"
                for name in _LIMITS
                if name in settings
            ]
            if limits and overflow and str(overflow.holds.value).startswith("reject-publish"):
                limited.append(f"{landing.queue!r} ({', '.join(limits)})")
        if not limited:
            return None
        return (
            f"probably the queue {' or '.join(limited)} is full, else one has failed; publish again"
            " when it has drained"
        )

    @cached_property
    def _router(self) -> Router:
        from broker.topology.compile import compile_topology
        from broker.topology.route import Router

        return Router(compile_topology(self._topology, secrets=False).objects)
