"""How one change is written to RabbitMQ."""

from __future__ import annotations

import json
from typing import Any

from broker.errors import BrokerUnavailable
from broker.management import Management
from broker.topology.objects import (
    BINDING,
    EXCHANGE,
    POLICY,
    QUEUE,
    VHOST,
    Identity,
    Object,
    canonical,
)
from broker.topology.plan import Change

_SEGMENT = {EXCHANGE: "exchanges", POLICY: "policies", QUEUE: "queues"}


def write(change: Change, vhost: str, management: Management) -> None:
    """Make one change; whether RabbitMQ did it, reading back tells.

    Raises:
        Unreachable, AccessRefused, ProvisioningFailed, BrokerUnavailable: see `broker.errors`.
    """
    identity, wanted = change.identity, change.after
    if wanted is None:
        delete(identity, vhost, management)
    elif identity.kind == VHOST:
        management.put("vhosts", vhost, body=_vhost_body(change))
    elif identity.kind == BINDING:
        _bind(wanted, vhost, management)
    else:
        management.put(_SEGMENT[identity.kind], vhost, identity.name[0], body=body_of(wanted))


def delete(identity: Identity, vhost: str, management: Management) -> None:
    """Delete one object; one that is not there is no error."""
    if identity.kind == VHOST:
        management.delete("vhosts", vhost)
    elif identity.kind == BINDING:
        _unbind(identity, vhost, management)
    else:
        management.delete(_SEGMENT[identity.kind], vhost, identity.name[0])


def _unbind(identity: Identity, vhost: str, management: Management) -> None:
    source, kind, destination, routing_key, arguments = identity.name
    ends = ("e", source, "q" if kind == "queue" else "e", destination)
    # RabbitMQ's address of a binding has a hash of its arguments, which only RabbitMQ knows.
    for answer in management.find("bindings", vhost, *ends) or ():
        if answer["routing_key"] == routing_key and canonical(answer["arguments"]) == arguments:
            management.delete("bindings", vhost, *ends, answer["properties_key"])


def _vhost_body(change: Change) -> dict[str, Any]:
    assert change.after is not None
    # What is left out of the body RabbitMQ would set back.
    kept = dict(change.before.attributes) if change.before else {"default_queue_type": "quorum"}
    body = kept | dict(change.after.attributes)
    if "tags" in body:
        body["tags"] = ",".join(body["tags"])
    return body


def body_of(wanted: Object) -> dict[str, Any]:
    """Return what RabbitMQ is told of an object; its definitions take the same, with a name."""
    body = dict(wanted.attributes)
    if wanted.identity.kind == QUEUE:
        # Always explicit: the virtual host's default may change.
        body["arguments"] = {"x-queue-type": body.pop("type"), **body["arguments"]}
    return body


def _bind(wanted: Object, vhost: str, management: Management) -> None:
    source, kind, destination, routing_key, arguments = wanted.identity.name
    ends = ("e", source, "q" if kind == "queue" else "e", destination)
    body = {"routing_key": routing_key, "arguments": json.loads(arguments)}
    try:
        management.post("bindings", vhost, *ends, body=body)
    except BrokerUnavailable as exc:
        # For a key with "~" and arguments RabbitMQ answers 500 although it made the binding:
        # it fails on writing down the address of it. Reading back tells.
        if type(exc) is not BrokerUnavailable or "~" not in routing_key:
            raise
