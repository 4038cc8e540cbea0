"""How one change is written to RabbitMQ."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote_plus

from broker.errors import BrokerUnavailable, ProvisioningFailed
from broker.management import Management
from broker.topology.objects import (
    BINDING,
    EXCHANGE,
    GLOBAL_PARAMETER,
    OPERATOR_POLICY,
    PARAMETER,
    PERMISSION,
    POLICY,
    QUEUE,
    TOPIC_PERMISSION,
    USER,
    USER_LIMIT,
    VHOST,
    VHOST_LIMIT,
    Identity,
    Object,
    canonical,
)
from broker.topology.plan import Change

_SEGMENT = {
    EXCHANGE: "exchanges",
    QUEUE: "queues",
    POLICY: "policies",
    OPERATOR_POLICY: "operator-policies",
    VHOST_LIMIT: "vhost-limits",
    USER: "users",
    USER_LIMIT: "user-limits",
    PERMISSION: "permissions",
    TOPIC_PERMISSION: "topic-permissions",
    PARAMETER: "parameters",
    GLOBAL_PARAMETER: "global-parameters",
}
# What RabbitMQ answers where a plugin is missing, and which plugin that is.
_PLUGINS = (
    (re.compile(r"component shovel not found"), "rabbitmq_shovel"),
    (re.compile(r"component federation-\S+ not found"), "rabbitmq_federation"),
    (re.compile(r"federation-upstream.* are not recognised"), "rabbitmq_federation"),
    (re.compile(r"unknown exchange type 'x-modulus-hash'"), "rabbitmq_sharding before 4.3"),
    (re.compile(r"(?:invalid|unknown) exchange type"), "that brings this type of exchange"),
)


def write(change: Change, vhost: str, management: Management) -> None:
    """Make one change; whether RabbitMQ did it, reading back tells.

    Raises:
        Unreachable, AccessRefused, ProvisioningFailed, BrokerUnavailable: see `broker.errors`.
    """
    try:
        if change.after is None:
            delete(change.identity, vhost, management)
        else:
            _declare(change, change.after, vhost, management)
    except ProvisioningFailed as exc:
        raise _with_plugin(exc) from exc


def _declare(change: Change, wanted: Object, vhost: str, management: Management) -> None:
    identity = wanted.identity
    if identity.kind == VHOST:
        _declare_vhost(change, wanted, vhost, management)
    elif identity.kind == BINDING:
        _bind(wanted, vhost, management)
    elif identity.kind == TOPIC_PERMISSION:
        user, exchange = identity.name
        body = {"exchange": exchange, **wanted.attributes}
        management.put(_SEGMENT[TOPIC_PERMISSION], vhost, user, body=body)
    else:
        management.put(*_address(identity, vhost), body=body_of(wanted, change.before))


def delete(identity: Identity, vhost: str, management: Management) -> None:
    """Delete one object; one that is not there is no error."""
    if identity.kind == BINDING:
        _unbind(identity, vhost, management)
    else:
        management.delete(*_address(identity, vhost))


def _address(identity: Identity, vhost: str) -> tuple[str, ...]:
    """Return the path of an object below ``/api``."""
    match identity.kind:
        case "vhost":
            return ("vhosts", vhost)
        case "user" | "user-limit" | "global-parameter":
            return (_SEGMENT[identity.kind], *identity.name)
        case "parameter":
            component, name = identity.name
            return (_SEGMENT[PARAMETER], component, vhost, name)
        case _:
            return (_SEGMENT[identity.kind], vhost, *identity.name)


def _declare_vhost(change: Change, wanted: Object, vhost: str, management: Management) -> None:
    # What is left out of the body RabbitMQ would set back.
    kept = dict(change.before.attributes) if change.before else {"default_queue_type": "quorum"}
    body = kept | dict(wanted.attributes)
    protected = body.pop("protected_from_deletion", False)
    management.put("vhosts", vhost, body=body)
    # PUT takes no notice of it.
    if protected != kept.get("protected_from_deletion", False):
        if protected:
            management.post("vhosts", vhost, "deletion", "protection")
        else:
            management.delete("vhosts", vhost, "deletion", "protection")


def body_of(wanted: Object, before: Object | None = None) -> dict[str, Any]:
    """Return what declares an object (but a virtual host or a binding), in RabbitMQ's words."""
    body = dict(wanted.attributes)
    if wanted.identity.kind == QUEUE:
        # Always explicit: the virtual host's default may change.
        body["arguments"] = {"x-queue-type": body.pop("type"), **body["arguments"]}
    elif wanted.identity.kind == USER:
        # What is left out RabbitMQ erases, the password too.
        kept = dict(before.attributes) if before else {}
        return {"tags": [], "password_hash": ""} | kept | body
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


def _unbind(identity: Identity, vhost: str, management: Management) -> None:
    source, kind, destination, routing_key, arguments = identity.name
    ends = ("e", source, "q" if kind == "queue" else "e", destination)
    if arguments == "{}":
        # RabbitMQ's key of such a binding: https://www.rabbitmq.com/docs/http-api-reference
        key = quote_plus(routing_key).replace("~", "%7E") or "~"
        management.delete("bindings", vhost, *ends, key)
        return
    # With arguments it has a hash that only RabbitMQ knows.
    for answer in management.find("bindings", vhost, *ends) or ():
        if answer["routing_key"] == routing_key and canonical(answer["arguments"]) == arguments:
            management.delete("bindings", vhost, *ends, answer["properties_key"])


def _with_plugin(exc: ProvisioningFailed) -> ProvisioningFailed:
    for answer, plugin in _PLUGINS:
        if answer.search(str(exc)):
            return ProvisioningFailed(
                f"{exc}; enable the plugin {plugin} (`rabbitmq-plugins enable`)",
                object=exc.object,
                reason=exc.reason,
            )
    return exc
