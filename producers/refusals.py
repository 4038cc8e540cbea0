"""Why RabbitMQ may have refused a message: which of the queues that it goes to can be full."""

from __future__ import annotations

from producers.routes import Routes

_LIMITS = ("max-length", "max-length-bytes")


class Refusals:
    """Tells from the topology what a `basic.nack` is likely about; RabbitMQ says nothing with it.

    Args:
        routes: of the topology.
    """

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
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
        limited = []
        for queue, settings in self._routes.settings(exchange, routing_key):
            overflow = settings.get("overflow")
            limits = [
                f"{name} {settings[name].holds.value} by {settings[name].holds.origin}"
                for name in _LIMITS
                if name in settings
            ]
            if limits and overflow and str(overflow.holds.value).startswith("reject-publish"):
                limited.append(f"{queue!r} ({', '.join(limits)})")
        if not limited:
            return None
        return (
            f"probably the queue {' or '.join(limited)} is full, else one has failed; publish again"
            " when it has drained"
        )
