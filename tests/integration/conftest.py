"""A small topology, applied to the fresh virtual host of each test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.connection import Address
from broker.topology import Topology
from tests.provision import provision, topology_of


@dataclass(frozen=True)
class Provisioned:
    """A topology in force."""

    topology: Topology
    path: Path
    address: Address

    @property
    def url(self) -> str:
        return self.address.url


@pytest.fixture
def provisioned(rabbitmq, vhost, tmp_path, monkeypatch) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    topology, path = topology_of(tmp_path)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)
