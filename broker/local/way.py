"""A way to run the private RabbitMQ: what each of the three must do."""

from __future__ import annotations

from typing import Protocol

from broker.local.state import Home, Node, State


class Say(Protocol):
    """Tells the person what is being done; with a fraction (0-1), how far a long step is."""

    def __call__(self, text: str, fraction: float | None = None, /) -> None: ...


class Unavailable(Exception):
    """This way cannot be taken here; the sentence says why."""


class Way(Protocol):
    """One of: a container engine, the rabbitmq-server on the PATH, Debian's packages."""

    def prepare(self, home: Home, say: Say) -> None:
        """Get what the way needs. Raises Unavailable where it cannot be taken here."""

    def start(self, home: Home, state: State, node: Node) -> Node:
        """Start a node that has ended; return it with its process or container."""

    def running(self, home: Home, node: Node) -> bool:
        """Say whether the node still runs."""

    def stop(self, home: Home, node: Node | None) -> bool:
        """End the node and whatever a crash left of it; say whether there was anything."""

    def purge(self, home: Home) -> None:
        """Remove data that does not lie in the home's own folder."""

    def log(self, home: Home, *, lines: int) -> str:
        """Return the last lines of the node's log."""

    def follow(self, home: Home, node: Node, *, lines: int) -> list[str]:
        """Return the command that shows the log's end and what is added to it."""
