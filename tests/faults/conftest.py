"""A RabbitMQ that may be hurt, one for all tests of the faults."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.connection import Address
from broker.management import Management
from broker.topology import Topology
from tests.faults.nodes import Hurt, NoNode
from tests.faults.working import ACCOUNTED, WORK, Field
from tests.provision import provision, topology_of
from tests.rabbitmq import home_of_run
from tests.waiting import until


@pytest.fixture(scope="session")
def hurt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hurt]:
    """A private RabbitMQ, started for the first test that wants it."""
    home = home_of_run(tmp_path_factory.mktemp("hurt"))
    try:
        node = Hurt(home)
    except NoNode as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no RabbitMQ that may be hurt: {exc}")
    yield node
    node.purge()


@dataclass(frozen=True)
class Ground:
    """A topology in force on the RabbitMQ that may be hurt."""

    hurt: Hurt
    topology: Topology
    path: Path
    address: Address
    folder: Path

    @property
    def queues(self) -> list[str]:
        return list(self.topology.queues)

    def connections(self) -> set[str]:
        """Return the names of all connections of its one user."""
        with Management(self.address) as management:
            # The tracking table knows a connection at once; the list of all lags by seconds.
            found = management.get("connections", "username", self.address.user)
        return {each["name"] for each in found}

    def wait_connected(self) -> None:
        """Wait until somebody is connected."""
        until(self.connections, timeout_s=20, what="the publisher's connection")

    def close_connections(self) -> None:
        """Close all connections, by management."""
        self.wait_connected()
        with Management(self.address) as management:
            management.delete("connections", "username", self.address.user)


JOBS = """
version: 1
name: faults
vhost: {name: unused, default_queue_type: quorum}
exchanges:
  jobs: {type: topic}
  side: {type: topic}
queues:
  jobs.normal: {bindings: [{exchange: jobs, routing_key: "normal.#"}]}
  jobs.side: {bindings: [{exchange: side, routing_key: "#"}]}
  jobs.tiny:
    bindings: [{exchange: jobs, routing_key: "tiny.#"}]
    max_length: 100
    overflow: reject-publish
jobs:
  normal: {exchange: jobs, routing_key: normal.job}
  side: {exchange: side, routing_key: side.job}
  tiny: {exchange: jobs, routing_key: tiny.job}
"""


@pytest.fixture
def ground(hurt: Hurt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    """A fresh virtual host with queues for all jobs, one for a few, and one of a side exchange."""
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", hurt.address.management_url)
    address = hurt.address.with_vhost(f"faults-{uuid.uuid4().hex[:8]}")
    topology, path = topology_of(tmp_path, JOBS)
    provision(topology, address)
    yield Ground(hurt, topology, path, address, tmp_path)
    with Management(hurt.address) as management:
        management.delete("vhosts", address.vhost_name)


@pytest.fixture
def field(hurt: Hurt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Field]:
    """A fresh virtual host with one queue for workers, whose tasks keep an account."""
    url = hurt.address.management_url
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", url)
    address = hurt.address.with_vhost(f"fault-{uuid.uuid4().hex[:8]}")
    (tmp_path / "accounted.py").write_text(ACCOUNTED)
    topology, path = topology_of(tmp_path, WORK)
    hurt.tell_soon()
    provision(topology, address)
    field = Field(hurt, topology, path, address, tmp_path, {"RABBITRY_MANAGEMENT_URL": url})
    yield field
    field.end()
    with Management(hurt.address) as management:
        management.delete("vhosts", address.vhost_name)
