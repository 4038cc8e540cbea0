"""How one change is written to RabbitMQ."""

from __future__ import annotations

import json
from typing import Any

from broker.errors import BrokerUnavailable
from broker.management import Management
from broker.topology.objects import BINDING, EXCHANGE, POLICY, QUEUE, VHOST, Object
from broker.topology.plan import Change

_SEGMENT = {EXCHANGE: "exchanges", POLICY: "policies", QUEUE: "queues"}


def write(change: Change, vhost: str, management: Management) -> None:
    """Make one change; whether RabbitMQ did it, reading back tells.

    Raises:
        Unreachable, AccessRefused, ProvisioningFailed, BrokerUnavailable: see `broker.errors`.
    """
    identity, wanted = change.identity, change.after
    if wanted is None:
        if identity.kind != POLICY:
            raise AssertionError(f"nothing here deletes {identity}")
        management.delete(_SEGMENT[POLICY], vhost, identity.name[0])
    elif identity.kind == VHOST:
        management.put("vhosts", vhost, body=_vhost_body(change))
    elif identity.kind == BINDING:
        _bind(wanted, vhost, management)
    else:
        management.put(_SEGMENT[identity.kind], vhost, identity.name[0], body=_body(wanted))


def _vhost_body(change: Change) -> dict[str, Any]:
    assert change.after is not None
    # What is left out of the body RabbitMQ would set back.
    kept = dict(change.before.attributes) if change.before else {"default_queue_type": "quorum"}
    body = kept | dict(change.after.attributes)
    if "tags" in body:
        body["tags"] = ",".join(body["tags"])
    return body


def _body(wanted: Object) -> dict[str, Any]:
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
