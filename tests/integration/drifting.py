"""Changes that people make by hand, one at a time, and what a plan has to say to each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from broker.management import Management, version_key
from broker.topology.changes import Change
from broker.topology.look import Look
from broker.topology.objects import (
    BINDING,
    CHANGEABLE,
    EXCHANGE,
    OPERATOR_POLICY,
    PARAMETER,
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
    """Change, delete, make anew or add one object by RabbitMQ's management API."""
    kind = data.draw(st.sampled_from(["delete", "change", "remake", "add"]))
    expected = Expected(unmanaged=set(there.plan.unmanaged))
    objects = there.desired.objects
    deletable = sorted(each for each in objects if each.kind != VHOST)
    changeable = sorted(each for each in objects if each.kind in CHANGEABLE)
    remade = sorted(each for each in objects if each.kind in (EXCHANGE, QUEUE))
    if kind == "add":
        _add(management, there.desired.vhost, expected, data)
    elif kind == "delete" and deletable:
        _delete(management, there, data.draw(st.sampled_from(deletable)), expected)
    elif kind == "remake" and remade:
        _remake(management, there, data.draw(st.sampled_from(remade)), expected, data)
    else:
        _change(management, there, data.draw(st.sampled_from(changeable)), expected, data)
    return expected


def _add(management: Management, vhost: str, expected: Expected, data: st.DataObject) -> None:
    name = "by hand /%~"
    queue, exchange = Identity(QUEUE, (name,)), Identity(EXCHANGE, (name,))
    policy = Identity(POLICY, (name,))
    binding = binding_identity(
        source="amq.fanout", kind="queue", destination=name, routing_key="k#", arguments={"a": 1}
    )
    what = data.draw(
        st.sampled_from([QUEUE, EXCHANGE, POLICY, OPERATOR_POLICY, BINDING, VHOST_LIMIT])
    )
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
    if what == OPERATOR_POLICY:
        body = {"pattern": "^by hand", "definition": {"max-length": 3}, "apply-to": "queues"}
        management.put("operator-policies", vhost, name, body=body)
        expected.unmanaged.add(Identity(OPERATOR_POLICY, (name,)))
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
    expected.changes[DELETED, identity] = set()
    for each in objects:
        if _goes_with(each, identity, management):
            expected.changes[DELETED, each] = set()


def _goes_with(other: Identity, deleted: Identity, management: Management) -> bool:
    """Say what RabbitMQ deletes beside an object.

    With a user go its rights and limits, with an exchange or queue its bindings, and with an
    exchange the rights to its topics, which 4.0 keeps.
    """
    name = deleted.name[0]
    if deleted.kind == USER:
        return other.kind in (PERMISSION, TOPIC_PERMISSION, USER_LIMIT) and other.name[0] == name
    if deleted.kind == EXCHANGE and other.kind == TOPIC_PERMISSION:
        return other.name[1] == name and version_key(management.version()) >= version_key("4.3")
    if deleted.kind in (EXCHANGE, QUEUE):
        return other.kind == BINDING and _ends(other, deleted)
    return False


def _ends(binding: Identity, end: Identity) -> bool:
    source, kind, destination, *_ = binding.name
    as_source = end.kind == EXCHANGE and source == end.name[0]
    as_destination = (end.kind == QUEUE) == (kind == "queue") and destination == end.name[0]
    return as_source or as_destination


def _remake(
    management: Management,
    there: Look,
    identity: Identity,
    expected: Expected,
    data: st.DataObject,
) -> None:
    """Delete a queue or exchange and declare it with one thing different, without its bindings."""
    before = there.observed.objects[identity]
    found: dict[str, Any] = json.loads(json.dumps(dict(before.attributes)))
    arguments = found["arguments"]
    choices = ["arguments.x-by-hand"]
    if identity.kind == EXCHANGE:
        choices += ["type", "durable", "internal"]
    elif "x-max-length-bytes" not in arguments:
        choices += ["arguments.x-max-length-bytes"]
    if found["type"] == "classic":
        choices += ["auto_delete"]
    if identity.kind == QUEUE and arguments:
        choices += [f"arguments.{name}" for name in arguments]
    attribute = data.draw(st.sampled_from(choices))
    argument = attribute.removeprefix("arguments.")
    if attribute == "type":
        found["type"] = "fanout" if found["type"] != "fanout" else "direct"
    elif argument == attribute:
        found[attribute] = not found[attribute]
    elif argument in arguments:
        del arguments[argument]
    else:
        arguments[argument] = 77_777
    vhost = there.desired.vhost
    write(Change("delete", identity, before=before), vhost, management)
    write(Change("create", identity, after=Object(identity, found)), vhost, management)
    expected.changes["replace", identity] = {attribute}
    for each in there.desired.objects:
        if _goes_with(each, identity, management):
            expected.changes[DELETED, each] = set()


def _change(
    management: Management,
    there: Look,
    identity: Identity,
    expected: Expected,
    data: st.DataObject,
) -> None:
    before = there.observed.objects[identity]
    changed: dict[str, Any] = json.loads(json.dumps(dict(before.attributes)))
    attribute = _alter(identity, changed, data)
    if attribute == "password_hash":
        body = {"password": "by hand", "tags": changed["tags"]}
        management.put("users", identity.name[0], body=body)
    else:
        after = Object(identity, changed)
        write(Change("update", identity, before, after), there.desired.vhost, management)
        wanted = there.desired.objects[identity].attributes
        # Of a virtual host and of a user only what the file says counts.
        if identity.kind in PARTIAL and attribute not in wanted:
            return
    expected.changes["update", identity] = {attribute}


def _alter(identity: Identity, found: dict[str, Any], data: st.DataObject) -> str:
    """Alter one attribute and return which."""
    match identity.kind:
        case "policy" | "operator-policy":
            return _alter_policy(found, data)
        case "permission" | "topic-permission":
            attribute = data.draw(st.sampled_from(sorted(found)))
            found[attribute] = "^by hand$"
        case "vhost-limit" | "user-limit":
            attribute = "value"
            found["value"] += 1
        case "user":
            attribute = data.draw(st.sampled_from(["tags", "password_hash"]))
            found["tags"] = ["policymaker"] if attribute == "tags" else found["tags"]
        case "vhost":
            attribute = data.draw(st.sampled_from(["default_queue_type", "description", "tags"]))
            by_hand = {"default_queue_type": "stream", "tags": ["by hand"]}
            found[attribute] = by_hand.get(attribute, "by hand")
        case _:
            return _alter_value(identity, found)
    return attribute


def _alter_policy(found: dict[str, Any], data: st.DataObject) -> str:
    definition = found["definition"]
    keys = [key for key, value in definition.items() if type(value) is int]
    choices = ["priority", "pattern", "apply-to", *(f"definition.{key}" for key in keys)]
    if "max-length" not in definition:
        choices.append("definition.max-length")
    attribute = data.draw(st.sampled_from(choices))
    key = attribute.removeprefix("definition.")
    if attribute == "priority":
        found["priority"] += 1000
    elif attribute == "pattern":
        found["pattern"] = f"^by hand$|{found['pattern']}"
    elif attribute == "apply-to":
        found["apply-to"] = "queues" if found["apply-to"] != "queues" else "classic_queues"
    elif key not in definition:
        definition[key] = 77_777
    elif len(definition) > 1 and data.draw(st.booleans()):
        del definition[key]
    else:
        definition[key] += 1
    return attribute


def _alter_value(identity: Identity, found: dict[str, Any]) -> str:
    component, value = identity.name[0], found["value"]
    if component == "federation-upstream-set":
        found["value"] = [{"upstream": "by hand"}]
        return "value"
    if identity.kind == PARAMETER and isinstance(value, dict):
        key = "reconnect-delay" if component == "shovel" else "max-hops"
        value[key] = 7_777
        return f"value.{key}"
    if isinstance(value, dict):
        value["by hand"] = 1
        return "value.by hand"
    found["value"] = "by hand"
    return "value"
