"""Rules about what the RabbitMQ that a file asks for does not know yet."""

from __future__ import annotations

from collections.abc import Iterator

from broker.topology.lint.finding import Finding, finding
from broker.topology.model import Topology
from broker.topology.versions import lacks


def check_values(topology: Topology) -> Iterator[Finding]:
    """Yield what the file says in vain."""
    asked = topology.broker.requires
    for lack in lacks(topology, asked):
        yield finding(
            lack.path,
            "needs-version",
            f"RabbitMQ knows {lack.what} from {lack.since} on, and the file is for {asked}:"
            f' {lack.loss}; write broker: {{requires: "{lack.since}"}}, or take it away',
            at_key=not lack.harmful,
        )
