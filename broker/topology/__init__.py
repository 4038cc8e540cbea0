"""What exists on the broker, as a file: read, compared with RabbitMQ, applied."""

from __future__ import annotations

from broker.topology.model import Topology

__all__ = ["Topology"]
