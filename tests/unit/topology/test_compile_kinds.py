"""What the sections beside exchanges and queues compile to."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from broker.topology import Topology
from broker.topology.compile import compile_topology
from broker.topology.objects import (
    GLOBAL_PARAMETER,
    HIDDEN,
    OPERATOR_POLICY,
    PARAMETER,
    POLICY,
    QUEUE,
    USER,
    USER_LIMIT,
    VHOST_LIMIT,
    Identity,
    Object,
    Objects,
    masked,
)
from broker.topology.passwords import hashed, matches, settled

URI = "amqp://u:p@h/%2f"


def compiled(**sections: Any) -> Objects:
    return compile_topology(
        Topology.model_validate({"version": 1, "name": "t", **sections})
    ).objects


def generated(objects: Objects) -> dict[str, Any]:
    own = Identity(POLICY, ("t.delays",))
    (policy,) = (
        each for each in objects.values() if each.identity.kind == POLICY and each.identity != own
    )
    return dict(policy.attributes["definition"])


@pytest.mark.parametrize(
    ("requires", "keys"),
    [
        (None, {"delayed-retry-type", "delayed-retry-min", "delivery-limit", "message-ttl"}),
        ("4.3", {"delayed-retry-type", "delayed-retry-min", "delivery-limit", "message-ttl"}),
        ("4.2.1", {"delivery-limit", "message-ttl"}),
        ("4", {"delivery-limit", "message-ttl"}),
    ],
)
def test_an_older_rabbitmq_gets_no_key_that_it_does_not_know(
    requires: str | None, keys: set[str]
) -> None:
    settings = {"retry": {"delay": "1s", "limit": 3}, "message_ttl": "1h"}
    new = {"consumer_disconnected_timeout": "1m"} if requires and requires < "4.3" else {}
    objects = compiled(broker={"requires": requires}, queues={"q": settings | new})
    assert generated(objects).keys() == keys


def test_policies_take_durations_and_sizes() -> None:
    definition = {"message-ttl": "30s", "max-length-bytes": "1KiB", "max-length": 3}
    found = compiled(
        policies={"p": {"pattern": "^a", "definition": definition, "protected": True}},
        operator_policies={"o": {"pattern": ".*", "definition": {"expires": "1h"}}},
    )
    policy = found[Identity(POLICY, ("p",))]
    assert policy.protected
    assert policy.attributes == {
        "apply-to": "all",
        "pattern": "^a",
        "priority": 0,
        "definition": {"message-ttl": 30_000, "max-length-bytes": 1024, "max-length": 3},
    }
    operator = found[Identity(OPERATOR_POLICY, ("o",))]
    assert operator.attributes["apply-to"] == "queues"
    assert operator.attributes["definition"] == {"expires": 3_600_000}


def test_shovels_and_upstreams_become_parameters_in_rabbitmqs_words() -> None:
    upstream = {"uri": URI, "expires": "1h", "reconnect_delay": "1500ms", "arguments": {"x-y": 1}}
    found = compiled(
        shovels={
            "s": {
                "src_uri": URI,
                "src_queue": "a",
                "dest_uri": [URI],
                "dest_queue": "b",
                "src_delete_after": 5,
                "reconnect_delay": "5s",
            }
        },
        federation={
            "upstreams": {"u": upstream},
            "upstream_sets": {"s": [{"upstream": "u", "message_ttl": "1s"}]},
        },
        parameters={"other": {"n": [1, {"a": None}]}},
        global_parameters={"g": "text"},
    )
    values = {each.identity.name: each.attributes["value"] for each in found.values() if _is(each)}
    assert values == {
        ("shovel", "s"): {
            "src-uri": URI,
            "src-queue": "a",
            "dest-uri": [URI],
            "dest-queue": "b",
            "src-delete-after": 5,
            "reconnect-delay": 5,
        },
        ("federation-upstream", "u"): {
            "uri": URI,
            "expires": 3_600_000,
            "reconnect-delay": 1.5,
            "x-y": 1,
        },
        ("federation-upstream-set", "s"): [{"upstream": "u", "message-ttl": 1000}],
        ("other", "n"): [1, {"a": None}],
        ("g",): "text",
    }


def _is(each: Object) -> bool:
    return each.identity.kind in (PARAMETER, GLOBAL_PARAMETER)


def test_federation_joins_the_generated_policy() -> None:
    found = compiled(queues={"q": {"federation_upstream_set": "all", "max_length": 1}})
    assert generated(found) == {"federation-upstream-set": "all", "max-length": 1}
    found = compiled(exchanges={"x": {"type": "topic", "federation_upstream": "u"}})
    assert generated(found) == {"federation-upstream": "u"}


def test_limits_are_objects_of_their_own() -> None:
    found = compiled(limits={"max_queues": 5}, users={"u": {"limits": {"max_channels": -1}}})
    assert found[Identity(VHOST_LIMIT, ("max-queues",))].attributes == {"value": 5}
    assert found[Identity(USER_LIMIT, ("u", "max-channels"))].attributes == {"value": -1}


def test_protected_is_not_sent() -> None:
    found = compiled(queues={"q": {"protected": True}})[Identity(QUEUE, ("q",))]
    assert found.protected
    assert "protected" not in found.attributes


@pytest.mark.parametrize(
    "sections",
    [
        {"parameters": {"shovel": {"s": {}}}},
        {"parameters": {"vhost-limits": {"limits": {}}}},
        {"global_parameters": {"rabbitry.topology.x": {}}},
        {"federation": {"upstream_sets": {"all": [{"upstream": "u"}]}}},
        {"users": {"u": {"role": "worker", "jobs": ["a"]}}},
        {"users": {"u": {"role": "worker", "permissions": {}}}},
        {"policies": {"p": {"pattern": "a", "definition": {}}}},
        {"operator_policies": {"p": {"pattern": "a", "apply_to": "exchanges", "definition": {}}}},
    ],
)
def test_what_stands_elsewhere_or_contradicts_is_refused(sections: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        compiled(**sections)


@pytest.mark.parametrize("kind", ["sha256", "sha512", "md5"])
def test_passwords_are_compared_by_the_stored_salt(kind: str) -> None:
    algorithm = f"rabbit_password_hashing_{kind}"
    user = {"password": "geheim é", "hashing_algorithm": algorithm}
    wanted = compiled(users={"u": user})[Identity(USER, ("u",))]
    stored = hashed("geheim é", algorithm=algorithm, salt=b"abcd")
    assert stored != wanted.attributes["password_hash"]
    assert matches("geheim é", stored, algorithm=algorithm)
    there = Object(wanted.identity, {"password_hash": stored, "hashing_algorithm": algorithm})
    assert settled(wanted, there).attributes["password_hash"] == stored
    for other in ("", "bad base64!", hashed("other", algorithm=algorithm, salt=b"abcd")):
        there = Object(wanted.identity, {"password_hash": other, "hashing_algorithm": algorithm})
        assert settled(wanted, there) is wanted


def test_rabbitmqs_own_example_of_a_hash() -> None:
    # https://www.rabbitmq.com/docs/passwords#computing-password-hash
    salt = bytes.fromhex("908DC60A")
    found = hashed("test12", algorithm="rabbit_password_hashing_sha256", salt=salt)
    assert found == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"


def test_what_is_secret_is_masked() -> None:
    assert masked(USER, "password_hash", "x") == HIDDEN
    assert masked(USER, "tags", ["a"]) == ["a"]
    assert masked(PARAMETER, "value.uri", "amqps://u:p%40@h:1/v?x=y") == "amqps://u:***@h:1/v?x=y"
    assert masked(PARAMETER, "value.uri", "amqp://h:5672/a@b") == "amqp://h:5672/a@b"
    assert masked(PARAMETER, "value.a", {"b": [URI]}) == {"b": ["amqp://u:***@h/%2f"]}
    assert masked(PARAMETER, "value.a", "s", frozenset({"value.a"})) == HIDDEN
    assert masked(PARAMETER, "value.a", None, frozenset({"value.a"})) is None
