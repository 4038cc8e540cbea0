"""Free ports for the private RabbitMQ."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections.abc import Callable
from pathlib import Path

from broker.connection import MANAGEMENT_PORT_OFFSET
from broker.errors import LocalNodeError
from broker.local.state import HOST, Ports

# Below the ephemeral ports (32768 and up on Linux) also with the offset of management.
_FIRST, _LAST, _BLOCK = 20_000, 22_700, 10


def choose_ports(
    home: Path, *, kept: Ports | None = None, free: Callable[[int], bool] | None = None
) -> Ports:
    """Return ports of which none is in use.

    Args:
        home: the node's home; different homes begin to look at different places, so that
            two nodes started at the same time do not meet.
        kept: the ports of the last time, taken again where they are free.
        free: says whether a port is free; asks the kernel by default.

    Raises:
        LocalNodeError: every block of ports is taken.
    """
    free = free or is_free
    if kept is not None and all(free(port) for port in _all(kept)):
        return kept
    blocks = range(_FIRST, _LAST, _BLOCK)
    digest = hashlib.sha256(str(home).encode()).digest()
    offset = int.from_bytes(digest[:4], "big") % len(blocks)
    for first in (*blocks[offset:], *blocks[:offset]):
        ports = Ports(
            amqp=first,
            management=first + MANAGEMENT_PORT_OFFSET,
            prometheus=first + 1,
            distribution=first + 2,
            epmd=first + 3,
        )
        if all(free(port) for port in _all(ports)):
            return ports
    raise LocalNodeError(f"no free ports for a private RabbitMQ between {_FIRST} and {_LAST}")


def is_free(port: int) -> bool:
    """Say whether nobody listens on a port, on loopback or on all interfaces."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _all(ports: Ports) -> tuple[int, ...]:
    return (ports.amqp, ports.management, ports.prometheus, ports.distribution, ports.epmd)
