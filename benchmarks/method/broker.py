"""The RabbitMQ that everybody is measured on, and a virtual host of one's own in it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from amqp.exceptions import NotFound

from benchmarks.method.children import until
from benchmarks.method.processor import is_here, rabbitmq_pid
from broker import local
from broker.connection import Address, connect, resolve_address
from broker.management import Management
from broker.topology import Topology
from broker.topology.apply import apply
from broker.topology.look import look

PREFIX = "bench-"
TELLS_S = 30.0
ASK_AGAIN_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitMQ:
    """A RabbitMQ to measure on.

    Attributes:
        address: of its default virtual host.
        pid: of its Erlang VM on this machine; None where it cannot be seen, and its processor
            time is not measured.
        described: its version and what of its configuration matters, for the record.
    """

    address: Address
    pid: int | None
    described: Mapping[str, Any]

    @property
    def version(self) -> str:
        return str(self.described["version"])


@contextmanager
def running() -> Iterator[RabbitMQ]:
    """Find RabbitMQ, or start the private one and take it down at the end.

    RABBITRY_URL and RABBITRY_MANAGEMENT_URL name it, as for every command.
    """
    started_here = "RABBITRY_URL" not in os.environ and local.private_url() is None
    if "RABBITRY_URL" not in os.environ:
        local.up()
    try:
        address = resolve_address()
        with Management(address) as management:
            # A node that is busy, or has just started, tells nothing of itself for a moment.
            until(
                lambda: "os_pid" in management.get("nodes")[0],
                "RabbitMQ to tell of its node",
                timeout_s=TELLS_S,
                pause_s=0.2,
            )
            nodes = management.get("nodes")
            described = describe(management.get("overview"), nodes)
            os_pid = int(nodes[0]["os_pid"])
        pid = rabbitmq_pid(address.port, os_pid) if is_here(address.host) else None
        yield RabbitMQ(address=address, pid=pid, described=described)
    finally:
        if started_here:
            local.down()


def describe(overview: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return RabbitMQ's version and what of its configuration moves a figure.

    Args:
        overview, nodes: as the management API tells them.
    """
    node = nodes[0]
    return {
        "version": overview["rabbitmq_version"],
        "erlang": overview["erlang_version"],
        "nodes": len(nodes),
        "schedulers": node["processors"],
        "memory_limit_mib": round(node["mem_limit"] / 2**20),
        "disk_free_limit_mib": round(node["disk_free_limit"] / 2**20),
        "statistics": overview["rates_mode"],
        "default_queue_type": overview["default_queue_type"],
        "plugins": sorted(node["enabled_plugins"]),
    }


@contextmanager
def virtual_host(
    rabbitmq: RabbitMQ,
    topology: Topology | Mapping[str, Any] | None = None,
    *,
    default_queue_type: str = "quorum",
) -> Iterator[Address]:
    """Make a virtual host, apply a topology to it, and delete all of it at the end.

    Args:
        rabbitmq: where.
        topology: a model, or what a file of it holds; None leaves the virtual host empty.
        default_queue_type: of queues that are declared without a type.

    Yields:
        The address of the virtual host, to log in at.
    """
    address = rabbitmq.address.with_vhost(f"{PREFIX}{uuid.uuid4().hex[:8]}")
    with Management(address, timeout_s=300) as management:
        management.put(
            "vhosts", address.vhost_name, body={"default_queue_type": default_queue_type}
        )
        try:
            if topology is not None:
                found = (
                    topology
                    if isinstance(topology, Topology)
                    else Topology.model_validate(topology)
                )
                outcome = apply(look(found, management).plan, management)
                if not outcome.complete:
                    raise SystemExit(f"the topology is not in force: {outcome.document()}")
            yield address
        finally:
            forget(management)


def forget(management: Management) -> None:
    """Delete a virtual host, and what rabbitry noted of it outside."""
    name = management.address.vhost_name
    management.delete("vhosts", name)
    for each in management.get("global-parameters"):
        if isinstance(each["value"], dict) and each["value"].get("vhost") == name:
            management.delete("global-parameters", each["name"])


def ready(address: Address, queue: str) -> int:
    """Return how many messages wait in a queue, those that a consumer holds apart: exactly."""
    connection = connect(address)
    try:
        return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
    finally:
        connection.release()


def purge(address: Address, queue: str) -> int:
    """Empty a queue of what waits in it; return how many messages there were."""
    connection = connect(address)
    try:
        return int(connection.default_channel.queue_purge(queue))
    finally:
        connection.release()


def wait_ready(address: Address, queue: str, count: int, *, timeout_s: float = 30.0) -> None:
    """Wait until at least so many messages wait in a queue."""
    _wait(
        address,
        lambda channel: channel.queue_declare(queue, passive=True).message_count >= count,
        f"{count:,} messages in {queue}",
        timeout_s,
    )


def wait_consumed(address: Address, queue: str, *, count: int = 1, timeout_s: float = 60.0) -> None:
    """Wait until so many consume a queue, which one of them may declare first."""
    _wait(
        address,
        lambda channel: channel.queue_declare(queue, passive=True).consumer_count >= count,
        f"a consumer of {queue}" if count == 1 else f"{count} consumers of {queue}",
        timeout_s,
    )


def _wait(address: Address, condition: Callable[[Any], bool], what: str, timeout_s: float) -> None:
    connection = connect(address)

    def holds() -> bool:
        try:
            return condition(connection.default_channel)
        except NotFound:
            return False  # RabbitMQ has closed the channel: kombu opens the next one

    try:
        until(holds, what, timeout_s=timeout_s, pause_s=ASK_AGAIN_S)
    finally:
        connection.release()
