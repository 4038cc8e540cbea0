"""Where jobs go, by the topology alone; worked out when it is first asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from broker.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.topology.route import Router


class Routes:
    """The queues that messages reach, and the settings in force there.

    Args:
        topology: with the exchanges, queues and policies.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology

    def settings(self, exchange: str, routing_key: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each queue that a message reaches, with its settings (`broker.topology.effective`).

        Args:
            exchange, routing_key: where the message is published.
        """
        from broker.topology.effective import find
        from broker.topology.objects import QUEUE

        for landing in self._router.route(exchange, routing_key).landings:
            queue = find(self._router.objects, QUEUE, landing.queue)
            if queue is not None:
                yield landing.queue, self._router.settings(queue)

    def are_certain(self, exchange: str, routing_key: str) -> bool:
        """Say whether the topology alone tells where a message goes, and that it goes somewhere."""
        found = self._router.route(exchange, routing_key)
        return bool(found.queues) and not found.unknown

    @cached_property
    def _router(self) -> Router:
        from broker.topology.route import Router

        return Router.of(self._topology)
