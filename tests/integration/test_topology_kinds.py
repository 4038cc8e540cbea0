"""Every kind of object: applied, read back equal, changed, deleted, on a real RabbitMQ."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from broker.errors import UnsupportedBroker
from broker.management import Management
from broker.topology import Topology
from broker.topology.apply import apply
from broker.topology.changes import Change
from broker.topology.compile import compile_topology
from broker.topology.objects import CREATION_ORDER, Desired, Object
from broker.topology.observe import observe, read_kind
from broker.topology.plan import make_plan
from broker.topology.write import write
from tests.integration.whole import knows_component
from tests.rabbitmq import RabbitMQ

UPSTREAM = "amqp://u:secret@127.0.0.1:1/%2f"


@pytest.fixture
def management(rabbitmq, vhost) -> Iterator[Management]:
    with Management(rabbitmq.address(vhost)) as found:
        yield found


@pytest.fixture
def suffix(rabbitmq) -> Iterator[str]:
    """Names of users and global parameters, which live beside the virtual hosts."""
    suffix = uuid.uuid4().hex[:8]
    yield suffix
    with Management(rabbitmq.address()) as management:
        for kind in ("users", "global-parameters"):
            for each in management.get(kind):
                if each["name"].endswith(suffix):
                    management.delete(kind, each["name"])


def desired(name: str, /, *, requires: str = "4.3", **sections: Any) -> Desired:
    data = {"version": 1, "name": "kinds", "vhost": {"name": name}, **sections}
    return compile_topology(Topology.model_validate(data), version=requires)


def brought_about(wanted: Desired, management: Management) -> list[str]:
    """Apply, check that the plan is then empty, and return what was done."""
    named = list(wanted.objects)
    plan = make_plan(wanted, observe(management, wanted.vhost, named=named))
    outcome = apply(plan, management)
    assert outcome.complete, outcome.document()
    there = observe(management, wanted.vhost, named=named)
    again = make_plan(wanted, there)
    assert again.same, again.document()
    return [f"{change.action} {change.identity.kind}" for change in outcome.done]


def taken_away(wanted: Desired, management: Management) -> None:
    """Delete every object but the virtual host, the last first, and check that it is gone."""
    objects = sorted(wanted.objects.values(), key=order, reverse=True)
    for each in objects[:-1]:
        write(Change("delete", each.identity, before=each), wanted.vhost, management)
        there = read_kind(management, wanted.vhost, each.identity.kind)
        assert each.identity not in there


def order(each: Object) -> int:
    return CREATION_ORDER.index(each.identity.kind)


KINDS = {
    "virtual host": (
        {"vhost": {"tags": ["b", "a", "x y"], "description": "é"}},
        {"vhost": {"tags": [], "description": "other"}},
    ),
    "limits": (
        {"limits": {"max_queues": 7, "max_connections": -1}},
        {"limits": {"max_queues": 9, "max_connections": -1}},
    ),
    "policies": (
        {
            "policies": {
                "by /~%# hand": {
                    "pattern": "^a",
                    "apply_to": "quorum_queues",
                    "priority": 3,
                    "definition": {"message-ttl": "30s", "max-length-bytes": "1MiB"},
                }
            }
        },
        {"policies": {"by /~%# hand": {"pattern": "^b", "definition": {"expires": "1h"}}}},
    ),
    "operator policies": (
        {"operator_policies": {"o": {"pattern": "^a", "definition": {"max-length": 5}}}},
        {"operator_policies": {"o": {"pattern": "^a", "definition": {"max-length": 6}}}},
    ),
    "shovels": (
        {
            "shovels": {
                "s / ~": {
                    "src_uri": [UPSTREAM],
                    "src_queue": "a",
                    "src_delete_after": "never",
                    "src_queue_args": {"x-queue-type": "quorum"},
                    "dest_uri": UPSTREAM,
                    "dest_exchange": "e",
                    "dest_exchange_key": "k",
                    "dest_publish_properties": {"delivery_mode": 2},
                    "src_consumer_args": {},
                    "reconnect_delay": "1h",
                    "ack_mode": "on-confirm",
                }
            }
        },
        {"shovels": {"s / ~": {"src_uri": UPSTREAM, "src_queue": "b", "dest_uri": UPSTREAM}}},
    ),
    "exchange of a plugin's type": (
        {
            "exchanges": {
                "hash": {
                    "type": "x-modulus-hash",
                    "internal": True,
                    "arguments": {"x": [1, "é", {"deep": {}}]},
                    "bindings": [{"exchange": "h", "arguments": {"x-match": "any", "k~ /": 1}}],
                },
                "h": {"type": "headers"},
            },
            "queues": {
                "q": {
                    "bindings": [
                        {
                            "exchange": "h",
                            "arguments": {"x-match": "all", "n": 1, "t": True, "s": "é"},
                        },
                        {"exchange": "hash", "routing_key": "a b~/%#+é.-_"},
                        {"exchange": "hash", "routing_key": ""},
                    ]
                }
            },
        },
        None,
    ),
    "every queue setting": (
        {
            "exchanges": {"dead": {"type": "fanout"}},
            "queues": {
                "quorum": {
                    "single_active_consumer": True,
                    "quorum_initial_group_size": 1,
                    "retry": {"delay": "1s", "max_delay": "1m", "limit": 3},
                    "dead_letter": {"exchange": "dead", "routing_key": "k"},
                    "message_ttl": "1d",
                    "expires": "2d",
                    "max_length": 10,
                    "max_length_bytes": "1MiB",
                    "consumer_timeout": "2h",
                    "consumer_disconnected_timeout": "5m",
                    "queue_leader_locator": "balanced",
                    "target_group_size": 3,
                },
                "classic": {
                    "type": "classic",
                    "max_priority": 5,
                    "overflow": "reject-publish-dlx",
                    "queue_version": 2,
                },
                "stream": {
                    "type": "stream",
                    "initial_cluster_size": 1,
                    "max_age": "7d",
                    "stream_max_segment_size_bytes": "1MB",
                    "stream_filter_size_bytes": 32,
                },
            },
        },
        None,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_goes_round(
    kind: str, rabbitmq: RabbitMQ, vhost: str, management: Management
) -> None:
    first, second = KINDS[kind]
    if kind == "exchange of a plugin's type" and not rabbitmq.knows("4.3"):
        # Its own types besides the four were fewer; this one takes classic queues and no keys.
        first = copy.deepcopy(first)
        first["exchanges"]["hash"]["type"] = "x-local-random"
        first["queues"]["q"]["type"] = "classic"
        first["queues"]["q"]["bindings"].pop(1)
    for sections in (first, second):
        if sections is not None:
            sections = dict(sections)
            of_vhost = {"name": vhost, **sections.pop("vhost", {})}
            wanted = desired(vhost, requires=rabbitmq.version, **{"vhost": of_vhost, **sections})
            assert brought_about(wanted, management)
    taken_away(wanted, management)


def test_users_go_round_and_their_passwords_are_compared(
    vhost: str, management: Management, suffix: str, monkeypatch
) -> None:
    monkeypatch.setenv("PRODUCER_PASSWORD", "correct horse")
    name = f"p /~é {suffix}"
    sections: dict[str, Any] = {
        "exchanges": {"jobs": {"type": "topic"}},
        "users": {
            name: {
                "password": "${PRODUCER_PASSWORD}",
                "tags": ["z", "management"],
                "permissions": {"configure": "^a", "write": "^jobs$"},
                "topic_permissions": {"jobs": {"write": "^high"}},
                "limits": {"max_connections": 5, "max_channels": 50},
            },
            f"nobody-{suffix}": {"password_hash": "", "role": "monitor"},
        },
    }
    done = brought_about(desired(vhost, **sections), management)
    assert done.count("create user") == 2
    assert {"create permission", "create topic-permission", "create user-limit"} <= set(done)
    # By hand and with another salt, but the same password: no difference.
    body = {"password": "correct horse", "tags": ["management", "z"]}
    management.put("users", name, body=body)
    assert brought_about(desired(vhost, **sections), management) == []
    management.put("users", name, body=body | {"password": "other"})
    plan_of = desired(vhost, **sections)
    plan = make_plan(plan_of, observe(management, vhost, named=list(plan_of.objects)))
    assert [each.attribute for each in plan.changes[0].differences] == ["password_hash"]
    assert "correct horse" not in json.dumps(plan.document()) + repr(plan)
    assert brought_about(plan_of, management) == ["update user"]
    # Neither told: it stays.
    stored = management.get("users", name)["password_hash"]
    del sections["users"][name]["password"]
    sections["users"][name]["tags"] = ["other"]
    wanted = desired(vhost, **sections)
    assert brought_about(wanted, management) == ["update user"]
    assert management.get("users", name)["password_hash"] == stored
    taken_away(wanted, management)


def test_parameters_go_round(vhost: str, management: Management, suffix: str) -> None:
    value = {"a": [1, {"b": None}], "c": {}, "d": "é", "e": 1.5, "f": []}
    sections = {"global_parameters": {f"g /~ {suffix}": value, f"text-{suffix}": "t"}}
    wanted = desired(vhost, **sections)
    assert brought_about(wanted, management) == ["create global-parameter"] * 2
    sections["global_parameters"][f"text-{suffix}"] = "u"
    wanted = desired(vhost, **sections)
    assert brought_about(wanted, management) == ["update global-parameter"]
    taken_away(wanted, management)


def test_a_protected_virtual_host_is_protected_on_rabbitmq(
    rabbitmq: RabbitMQ, vhost: str, management: Management
) -> None:
    if not rabbitmq.knows("4.1"):
        section = {"name": vhost, "protected_from_deletion": True}
        made = desired(vhost, requires=rabbitmq.version, vhost=section)
        assert brought_about(made, management) == []
        return
    for protected in (True, False):
        section = {"name": vhost, "protected_from_deletion": protected, "tags": ["kept"]}
        assert brought_about(desired(vhost, vhost=section), management) == ["update vhost"]
        answer = management.get("vhosts", vhost)
        assert (answer["protected_from_deletion"], answer["tags"]) == (protected, ["kept"])


def test_federation_goes_round_or_its_plugin_is_named(vhost: str, management: Management) -> None:
    sections = {
        "federation": {
            "upstreams": {
                "up /~": {
                    "uri": [UPSTREAM],
                    "expires": "1h",
                    "reconnect_delay": "5s",
                    "max_hops": 1,
                }
            },
            "upstream_sets": {"set": [{"upstream": "up /~", "exchange": "there"}]},
        }
    }
    wanted = desired(vhost, **sections)
    if knows_component(management, "federation-upstream"):
        assert brought_about(wanted, management) == ["create parameter"] * 2
        taken_away(wanted, management)
    else:
        with pytest.raises(UnsupportedBroker, match="enable rabbitmq_federation") as refused:
            apply(make_plan(wanted, observe(management, vhost)), management)
        assert "secret" not in str(refused.value)
