"""The Celery application: ``celery -A consumers.app worker -Q jobs.high``.

It is made of the topology file that RABBITRY_TOPOLOGY names (``topology.yaml`` by default) and
of the RabbitMQ that RABBITRY_URL names.
"""

from __future__ import annotations

import os

from broker.connection import address_of
from broker.topology import Topology
from consumers.factory import make_app

__all__ = ["app"]

_topology = Topology.load(os.environ.get("RABBITRY_TOPOLOGY", "topology.yaml"))
app = make_app(_topology, address_of(_topology))
