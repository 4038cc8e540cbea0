"""Who counts what a confirmed channel does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from broker.errors import Rejected, Unroutable


class Observer(Protocol):
    """Who counts; must be quick. Most of it runs in the connection's thread."""

    def handed_over(self) -> None:
        """Count a message that is under way from now on; in the publishing thread."""

    def ended(self, outcome: str, latencies_s: Sequence[float]) -> None:
        """Count messages that ended alike: ``routed``, ``unroutable``, ``rejected``, ``unknown``.

        Each was handed over before.

        Args:
            outcome: how they ended.
            latencies_s: of each, the seconds since it was handed over.
        """

    def blocked(self) -> None:
        """Note an alarm that has just begun."""

    def unblocked(self, seconds: float) -> None:
        """Count the seconds of an alarm that has just ended."""

    def reconnected(self) -> None:
        """Count a connection that replaces one that was lost."""


def name_of(outcome: Any) -> str:
    """Return the word for an outcome that is no `Routed`."""
    return _NAMES.get(type(outcome), "unknown")


_NAMES: dict[type[Any], str] = {Unroutable: "unroutable", Rejected: "rejected"}
