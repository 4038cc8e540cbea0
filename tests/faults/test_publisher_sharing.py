"""One publisher in several threads, and in forked processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from typing import Any

import pytest

from broker.connection import Address
from broker.receipt import Routed
from broker.topology import Topology
from producers.publisher import Publisher
from tests.faults.ledger import emptied
from tests.provision import provision, topology_of

TOPOLOGY = """
version: 1
name: sharing
vhost: {name: unused, default_queue_type: quorum}
exchanges:
  jobs: {type: topic}
queues:
  jobs.normal: {bindings: [{exchange: jobs, routing_key: "#"}]}
jobs:
  normal: {exchange: jobs, routing_key: normal.job}
"""
EACH = 200


@pytest.fixture
def address(rabbitmq: Any, vhost: str, monkeypatch: pytest.MonkeyPatch) -> Address:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    found: Address = rabbitmq.address(vhost)
    return found


@pytest.fixture
def topology(address: Address, tmp_path: Any) -> Topology:
    found, _ = topology_of(tmp_path, TOPOLOGY)
    provision(found, address)
    return found


def publish_all(publisher: Publisher, who: str, count: int = EACH) -> list[str]:
    """Publish so many jobs; return their ids, all routed."""
    ids = [f"{who}-{number}" for number in range(count)]
    receipts = [publisher.publish("normal", id, id=id) for id in ids]
    for receipt in receipts:
        assert isinstance(receipt.wait(), Routed)
    return ids


def in_child(publisher: Publisher, who: str) -> None:
    publish_all(publisher, who)
    publisher.close()


def test_a_forked_process_publishes_by_itself_and_so_does_its_parent(
    address: Address, topology: Topology
) -> None:
    with Publisher(topology, address.url) as publisher:
        ids = publish_all(publisher, "before")
        child = os.fork()
        if child == 0:
            # Nothing of pytest's may run in here.
            status = 1
            try:
                in_child(publisher, "child")
                status = 0
            finally:
                os._exit(status)
        ids += publish_all(publisher, "parent")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        ids += publish_all(publisher, "after")
    ids += [f"child-{number}" for number in range(EACH)]
    assert sorted(emptied(address, "jobs.normal")) == sorted(ids)


def test_a_pool_of_forked_processes_shares_a_publisher_that_was_used_before(
    address: Address, topology: Topology
) -> None:
    context = multiprocessing.get_context("fork")
    with Publisher(topology, address.url) as publisher:
        ids = publish_all(publisher, "before")
        # Under way while the children are made: their outcome is the parent's to know.
        open_ones = [publisher.publish("normal", id, id=id) for id in ("open-1", "open-2")]
        children = [
            context.Process(target=in_child, args=(publisher, f"child-{number}"))
            for number in range(3)
        ]
        for child in children:
            child.start()
        ids += publish_all(publisher, "parent")
        for child in children:
            child.join(60)
            assert child.exitcode == 0
        for receipt in open_ones:
            assert isinstance(receipt.wait(), Routed)
    ids += ["open-1", "open-2"]
    ids += [f"child-{child}-{number}" for child in range(3) for number in range(EACH)]
    assert sorted(emptied(address, "jobs.normal")) == sorted(ids)


def test_eight_threads_share_a_publisher(address: Address, topology: Topology) -> None:
    ids: list[str] = []
    with Publisher(topology, address.url) as publisher:
        threads = [
            threading.Thread(
                target=lambda number=number: ids.extend(
                    publish_all(publisher, f"thread-{number}", 500)
                )
            )
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(ids) == 4000
    assert sorted(emptied(address, "jobs.normal")) == sorted(ids)
