"""Rules about names that RabbitMQ cannot take although each alone is in order."""

from __future__ import annotations

from collections.abc import Iterator

from broker.topology.lint.finding import Finding, finding
from broker.topology.model import Topology
from broker.topology.settings import QUORUM
from broker.topology.values import NAME_LIMIT_BYTES

_ROOT = "/"


def check_values(topology: Topology) -> Iterator[Finding]:
    """Yield quorum queues whose name is too long together with the virtual host's."""
    vhost = topology.vhost.name
    # A quorum queue's processes are named after both; "/" is written as %2F there.
    prefix = len(("%2F" if vhost == _ROOT else vhost).encode()) + 1
    for name, queue in topology.queues.items():
        size = prefix + len(name.encode())
        if queue.type == QUORUM and size > NAME_LIMIT_BYTES:
            yield finding(
                ("queues", name),
                "name-length",
                f"the names of a quorum queue and of its virtual host have {NAME_LIMIT_BYTES - 1}"
                f" bytes together at most, these have {size - 1}",
                at_key=True,
            )
