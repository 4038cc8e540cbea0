"""Topologies for tests, applied to the virtual host of a test."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

from broker.connection import Address
from broker.management import Management
from broker.topology import Topology
from broker.topology.apply import apply
from broker.topology.compile import compile_topology
from broker.topology.observe import observe
from broker.topology.plan import make_plan
from tests.rabbitmq import RabbitMQ

REFERENCE = Path(__file__).resolve().parents[1] / "topology.yaml"

# Small and quick: retries after milliseconds, one band, jobs that go nowhere on purpose.
QUICK = """
version: 1
name: quick
vhost: {name: unused, default_queue_type: quorum}
exchanges:
  jobs: {type: topic}
  jobs.dead: {type: topic}
queues:
  jobs.normal:
    type: quorum
    bindings: [{exchange: jobs, routing_key: "normal.#"}]
    retry: {delay: 100ms, max_delay: 200ms, limit: 2}
    dead_letter: {exchange: jobs.dead}
    max_length: 100000
    overflow: reject-publish
    consumer_timeout: 5m
  jobs.tiny:
    type: quorum
    bindings: [{exchange: jobs, routing_key: "tiny.#"}]
    max_length: 3
    overflow: reject-publish
  jobs.dead:
    type: quorum
    bindings: [{exchange: jobs.dead, routing_key: "#"}]
    # Before 4.3 each look at a letter is a failed attempt.
    delivery_limit: -1
jobs:
  demo.add: {task: "consumers.jobs.demo:add", exchange: jobs, routing_key: normal.demo.add}
  demo.echo: {task: "consumers.jobs.demo:echo", exchange: jobs, routing_key: normal.demo.echo}
  demo.fail: {task: "consumers.jobs.demo:fail", exchange: jobs, routing_key: normal.demo.fail}
  demo.sleep: {task: "consumers.jobs.demo:sleep", exchange: jobs, routing_key: normal.demo.sleep}
  test.nowhere: {exchange: jobs, routing_key: nowhere}
  test.tiny: {exchange: jobs, routing_key: tiny.job}
workers:
  normal: {queues: [jobs.normal], concurrency: 2}
"""


def reference_for(rabbitmq: RabbitMQ) -> str:
    """Return the reference topology, for the version of RabbitMQ that is there."""
    asked = 'requires: "4.3"'
    text = REFERENCE.read_text()
    assert asked in text
    return text if rabbitmq.knows("4.3") else text.replace(asked, 'requires: "4.0"')


def topology_of(folder: Path, text: str = QUICK) -> tuple[Topology, Path]:
    """Write a topology file into a folder and read it."""
    path = folder / "topology.yaml"
    path.write_text(dedent(text))
    return Topology.load(path), path


def provision(topology: Topology, address: Address) -> None:
    """Apply a topology to the virtual host of an address."""
    with Management(address) as management:
        version = management.version()
        desired = compile_topology(topology, vhost=address.vhost_name, version=version)
        plan = make_plan(desired, observe(management, desired.vhost))
        outcome = apply(plan, management)
    assert outcome.complete, outcome.document()


def ready_in(address: Address, queue: str) -> int:
    """Return how many messages are ready in a queue, exactly (a passive declare)."""
    from broker.connection import connect

    connection = connect(address)
    try:
        return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
    finally:
        connection.release()


def consumers_of(address: Address, queue: str) -> int:
    """Return how many consumers a queue has, by a passive declare."""
    from broker.connection import connect

    connection = connect(address)
    try:
        return int(connection.default_channel.queue_declare(queue, passive=True).consumer_count)
    finally:
        connection.release()
