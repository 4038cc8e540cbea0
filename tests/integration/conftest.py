"""A small topology, applied to the fresh virtual host of each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.connection import Address
from broker.topology import Topology
from tests.integration.answering import Answer, Consumer
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


@pytest.fixture
def consumer(provisioned: Provisioned) -> Iterator[Callable[[Answer], Consumer]]:
    """Start what answers the calls of a test."""
    started: list[Consumer] = []

    def start(answer: Answer) -> Consumer:
        started.append(Consumer(provisioned.address, answer))
        return started[-1]

    yield start
    for each in started:
        each.close()
