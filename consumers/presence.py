"""Which consumers RabbitMQ lists on which queues, and which worker each of them is.

A worker's consumers say who they are in their tags: ``normal@host/4711/1f0c93ab/1``, the last part
counting them. Two workers of one name on one host differ in the third, which is random.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from broker.errors import AccessRefused, MissingOnBroker
from broker.management import Management

_TAG = re.compile(r"(?P<worker>.+)@(?P<host>[^@/]+)/(?P<pid>[0-9]+)/[0-9a-f]{8}/[0-9]+", re.DOTALL)
# AMQP's short string, and what follows the name.
_NAME_BYTES = 255 - len("/4194304/12345678/1234567890")
# Of a connection: what its owner says of itself.
_WORKER, _VERSION = "rabbitry_worker", "rabbitry_version"


@dataclass(frozen=True, slots=True)
class Presence:
    """One consumer of one queue; None where RabbitMQ does not say (yet).

    Attributes:
        worker: its name in the topology; None for a consumer that is no worker of rabbitry's.
        host: its own name of its machine, or the address that a foreign one comes from.
        pid: of its process.
        version: of rabbitry.
        queue: that it consumes.
        prefetch: how many messages it may hold; 0 for any number.
        active: whether RabbitMQ delivers to it.
        status: in RabbitMQ's words, such as ``up`` or ``single_active``.
        unacked: messages that its channel holds, of all its queues.
        since: when it connected, ISO 8601 in UTC.
        tag: its consumer tag.
        connection: its connection's name in RabbitMQ.
        user: that it logged in as.
    """

    worker: str | None
    host: str | None
    pid: int | None
    version: str | None
    queue: str
    prefetch: int | None
    active: bool
    status: str
    unacked: int | None
    since: str | None
    tag: str
    connection: str | None
    user: str | None

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def tag_prefix_of(hostname: str) -> str:
    """Return what the tags of a worker's consumers begin with, new for each call.

    Args:
        hostname: ``NAME@HOST``.
    """
    name = hostname.encode()[:_NAME_BYTES].decode(errors="ignore")
    return f"{name}/{os.getpid()}/{uuid.uuid4().hex[:8]}/"


def client_properties_of(hostname: str) -> dict[str, str]:
    """Return what the connections of a worker say of themselves.

    Args:
        hostname: ``NAME@HOST``.
    """
    found = {"connection_name": f"rabbitry worker {hostname}", _WORKER: hostname}
    try:
        return found | {_VERSION: version("rabbitry")}
    except PackageNotFoundError:  # pragma: no cover - run from a folder without its metadata
        return found


def presences_in(management: Management, queues: Iterable[str] | None = None) -> list[Presence]:
    """Return the consumers of a virtual host, by worker, host, process and queue.

    Args:
        management: the management API, whose address names the virtual host.
        queues: those whose consumers count; None for all.

    Raises:
        MissingOnBroker: there is no such virtual host.
        BrokerUnavailable: see `broker.errors`.
    """
    vhost = management.address.vhost_name
    wanted = None if queues is None else set(queues)
    consumers = [
        each
        for each in management.get("consumers", vhost)
        if wanted is None or each["queue"]["name"] in wanted
    ]
    if not consumers:
        return []
    connections = _by_name(management, "connections")
    channels = _by_name(management, "channels")
    found = [_presence(each, connections, channels) for each in consumers]
    return sorted(
        found, key=lambda each: (each.worker or "\U0010ffff", each.host or "", each.pid or 0)
    )


def _presence(
    consumer: Mapping[str, Any],
    connections: Mapping[str, Mapping[str, Any]],
    channels: Mapping[str, Mapping[str, Any]],
) -> Presence:
    # Of a consumer that has just gone there may be nothing left but its tag.
    details = consumer.get("channel_details") or {}
    connection = connections.get(details.get("connection_name", ""), {})
    tag = str(consumer.get("consumer_tag", ""))
    ours = _TAG.fullmatch(tag)
    connected_ms = connection.get("connected_at")
    unacked = channels.get(details.get("name", ""), {}).get("messages_unacknowledged")
    return Presence(
        worker=ours["worker"] if ours else None,
        host=ours["host"] if ours else details.get("peer_host"),
        pid=int(ours["pid"]) if ours else None,
        version=(connection.get("client_properties") or {}).get(_VERSION),
        queue=str(consumer["queue"]["name"]),
        prefetch=consumer.get("prefetch_count"),
        active=bool(consumer.get("active", True)),
        status=str(consumer.get("activity_status", "up")),
        unacked=unacked if isinstance(unacked, int) else None,
        since=datetime.fromtimestamp(connected_ms / 1000, UTC).isoformat(timespec="seconds")
        if isinstance(connected_ms, int)
        else None,
        tag=tag,
        connection=details.get("connection_name"),
        user=details.get("user"),
    )


def _by_name(management: Management, what: str) -> dict[str, Mapping[str, Any]]:
    """Return what a virtual host has of something, by name, as far as the user may see it."""
    try:
        found = management.get("vhosts", management.address.vhost_name, what)
    except (AccessRefused, MissingOnBroker):
        return {}
    return {str(each.get("name")): each for each in found}
