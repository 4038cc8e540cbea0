"""Changes that people make by hand, one at a time, and what a plan has to say to each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from broker.management import Management
from broker.topology.changes import Change
from broker.topology.look import Look
from broker.topology.objects import (
    BINDING,
    EXCHANGE,
    OPERATOR_POLICY,
    PARTIAL,
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
    binding_identity,
)
from broker.topology.write import write

DELETED = "create"


@dataclass
class Expected:
    """What a plan has to say: the attributes that differ by action and object; what is nobody's."""

    changes: dict[tuple[str, Identity], set[str]] = field(default_factory=dict)
    unmanaged: set[Identity] = field(default_factory=set)


def drift_one(management: Management, there: Look, data: st.DataObject) -> Expected:
    """Change, delete or add one object by RabbitMQ's management API."""
    kind = data.draw(st.sampled_from(["delete", "change", "add"]))
    expected = Expected(unmanaged=set(there.plan.unmanaged))
    objects = there.desired.objects
    deletable = sorted(each for each in objects if each.kind != VHOST)
    changeable = sorted(
        each
        for each in objects
        if each.kind in (POLICY, OPERATOR_POLICY, PERMISSION, TOPIC_PERMISSION)
        or each.kind in (VHOST_LIMIT, USER_LIMIT, USER, VHOST)
    )
    if kind == "add":
        _add(management, there.desired.vhost, expected, data)
    elif kind == "delete" and deletable:
        _delete(management, there, data.draw(st.sampled_from(deletable)), expected)
    else:
        _change(management, there, data.draw(st.sampled_from(changeable)), expected)
    return expected


def _add(management: Management, vhost: str, expected: Expected, data: st.DataObject) -> None:
    name = "by hand /%~"
    queue, exchange = Identity(QUEUE, (name,)), Identity(EXCHANGE, (name,))
    policy = Identity(POLICY, (name,))
    binding = binding_identity(
        source="amq.fanout", kind="queue", destination=name, routing_key="k#", arguments={"a": 1}
    )
    what = data.draw(st.sampled_from([QUEUE, EXCHANGE, POLICY, BINDING, VHOST_LIMIT]))
    if what in (QUEUE, BINDING):
        arguments = {"x-queue-type": "classic"}
        management.put("queues", vhost, name, body={"durable": True, "arguments": arguments})
        expected.unmanaged.add(queue)
    if what == EXCHANGE:
        management.put("exchanges", vhost, name, body={"type": "topic", "durable": True})
        expected.unmanaged.add(exchange)
    if what == POLICY:
        body = {"pattern": "^by hand", "definition": {"max-length": 3}}
        management.put("policies", vhost, name, body=body)
        expected.unmanaged.add(policy)
    if what == BINDING:
        ends = ("e", "amq.fanout", "q", name)
        body = {"routing_key": "k#", "arguments": {"a": 1}}
        management.post("bindings", vhost, *ends, body=body)
        expected.unmanaged.add(binding)
    if what == VHOST_LIMIT:
        # Only where the file says none: it would be a change otherwise, as below.
        expected_kind = Identity(VHOST_LIMIT, ("max-queues",))
        limits = management.get("vhost-limits", vhost)
        if not limits or "max-queues" not in limits[0]["value"]:
            management.put("vhost-limits", vhost, "max-queues", body={"value": 50_000})
            expected.unmanaged.add(expected_kind)


def _delete(management: Management, there: Look, identity: Identity, expected: Expected) -> None:
    objects = there.desired.objects
    change = Change("delete", identity, before=there.observed.objects[identity])
    write(change, there.desired.vhost, management)
    gone = {identity}
    # With a user go its rights and limits, with an exchange or queue its bindings.
    if identity.kind == USER:
        belonging = (PERMISSION, TOPIC_PERMISSION, USER_LIMIT)
        gone |= {e for e in objects if e.kind in belonging and e.name[0] == identity.name[0]}
    if identity.kind in (EXCHANGE, QUEUE):
        gone |= {each for each in objects if each.kind == BINDING and _ends(each, identity)}
    for each in gone:
        expected.changes[DELETED, each] = set()


def _ends(binding: Identity, end: Identity) -> bool:
    source, kind, destination, *_ = binding.name
    as_source = end.kind == EXCHANGE and source == end.name[0]
    as_destination = (end.kind == QUEUE) == (kind == "queue") and destination == end.name[0]
    return as_source or as_destination


def _change(management: Management, there: Look, identity: Identity, expected: Expected) -> None:
    before = there.observed.objects[identity]
    attributes, attribute = _other(before)
    after = Object(identity, attributes)
    write(Change("update", identity, before, after), there.desired.vhost, management)
    wanted = there.desired.objects[identity].attributes
    # Of a virtual host and of a user only what the file says counts.
    if identity.kind in PARTIAL and attribute not in wanted:
        return
    expected.changes["update", identity] = {attribute}


def _other(there: Object) -> tuple[Mapping[str, Any], str]:
    """Return other attributes, and which one is another."""
    found: dict[str, Any] = json.loads(json.dumps(dict(there.attributes)))
    match there.identity.kind:
        case "policy" | "operator-policy":
            found["priority"] += 1000
            return found, "priority"
        case "permission" | "topic-permission":
            found["write"] = "^by hand$"
            return found, "write"
        case "vhost-limit" | "user-limit":
            found["value"] += 1
            return found, "value"
        case "user":
            found["tags"] = ["policymaker"]
            return found, "tags"
        case _:
            found["description"] = "by hand"
            return found, "description"
