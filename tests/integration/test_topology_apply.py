"""Plan and apply against a real RabbitMQ."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.connection import connect
from broker.errors import AccessRefused, BrokerUnavailable, ProvisioningFailed, TopologyError
from broker.management import Management
from broker.topology import Topology
from broker.topology.apply import Outcome, apply
from broker.topology.compile import compile_topology
from broker.topology.look import look
from broker.topology.observe import observe, read_effective
from broker.topology.plan import Plan, make_plan
from tests.provision import reference_for, topology_of
from tests.rabbitmq import RabbitMQ

ODD_NAMES = [
    "a/b",
    "a~b",
    "100%",
    "#?@",
    "a blank",
    "žluť.漢字🐇",
    "^(a|b)$[.]*+{}\\",
    "%2F",
    "...",
]

BANDS: dict[str, Any] = {
    "exchanges": {"jobs": {"type": "topic"}, "dead": {"type": "topic"}},
    "queues": {
        "jobs.high": {
            "bindings": [{"exchange": "jobs", "routing_key": "high.#"}],
            "retry": {"delay": "1s", "max_delay": "1m", "limit": 5},
            "dead_letter": {"exchange": "dead"},
            "max_length": 1000,
        },
        "jobs.dead": {"bindings": [{"exchange": "dead", "routing_key": "#"}]},
    },
}


@pytest.fixture
def management(rabbitmq: Any, vhost: str) -> Iterator[Management]:
    with Management(rabbitmq.address(vhost)) as client:
        yield client


def topology(**sections: Any) -> Topology:
    return Topology.model_validate({"version": 1, "name": "t", **sections})


def plan(found: Topology, management: Management) -> Plan:
    vhost = management.address.vhost_name
    version = management.version()
    desired = compile_topology(found, vhost=vhost, version=version)
    return make_plan(desired, observe(management, vhost, version=version))


def applied(found: Topology, management: Management) -> Outcome:
    outcome = apply(plan(found, management), management)
    assert outcome.complete, outcome
    return outcome


def test_after_apply_the_plan_is_empty(rabbitmq: RabbitMQ, management: Management) -> None:
    found = topology(**BANDS)
    outcome = applied(found, management)
    ladder = [
        change
        for change in outcome.done
        if any(str(each).startswith(f"{found.name}.delays") for each in change.identity.name)
    ]
    assert len(outcome.done) == 7 + len(ladder)
    # It is for what delays no retries by itself.
    assert bool(ladder) is not rabbitmq.knows("4.3")
    again = plan(found, management)
    assert again.same
    assert again.warnings == ()
    assert apply(again, management) == Outcome()


def test_the_settings_are_in_force_on_the_queue(
    rabbitmq: RabbitMQ, management: Management, vhost: str
) -> None:
    applied(topology(**BANDS), management)
    delays = {
        "delayed-retry-max": 60000,
        "delayed-retry-min": 1000,
        "delayed-retry-type": "failed",
    }
    in_force = read_effective(management, vhost)
    assert in_force["jobs.high"] == {
        "dead-letter-exchange": "dead",
        "dead-letter-strategy": "at-least-once",
        "delivery-limit": 5,
        "max-length": 1000,
        "overflow": "reject-publish",
        **(delays if rabbitmq.knows("4.3") else {}),
    }
    assert in_force["jobs.dead"] == {}


def test_the_virtual_host_is_created_with_its_type(rabbitmq: Any) -> None:
    name = f"made by apply/{uuid.uuid4().hex}"
    found = topology(**BANDS, vhost={"name": name, "description": "ours", "tags": ["a", "b"]})
    with Management(rabbitmq.address(name)) as management:
        try:
            applied(found, management)
            assert plan(found, management).same
            (there,) = (v for v in management.get("vhosts") if v["name"] == name)
            assert there["default_queue_type"] == "quorum"
            assert sorted(there["tags"]) == ["a", "b"]
            # An update of one attribute leaves the others as they are.
            fewer = topology(**BANDS, vhost={"name": name, "description": "theirs"})
            applied(fewer, management)
            (there,) = (v for v in management.get("vhosts") if v["name"] == name)
            assert (there["description"], sorted(there["tags"])) == ("theirs", ["a", "b"])
            assert there["default_queue_type"] == "quorum"
        finally:
            management.delete("vhosts", name)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_go_round(management: Management, vhost: str, name: str) -> None:
    found = topology(
        exchanges={
            name: {"type": "headers", "alternate_exchange": "amq.fanout"},
            f"{name}2": {"type": "topic", "bindings": [{"exchange": name, "routing_key": name}]},
        },
        queues={
            name: {
                "max_length": 5,
                "bindings": [
                    {"exchange": name, "arguments": {"x-match": "all", name: name}},
                    {"exchange": f"{name}2", "routing_key": name},
                ],
            },
            f"{name}2": {},
        },
    )
    applied(found, management)
    assert plan(found, management).same
    in_force = read_effective(management, vhost)
    assert in_force == {name: {"max-length": 5}, f"{name}2": {}}


TILDE = {"exchange": "amq.topic", "routing_key": "a~b", "arguments": {"own": 1}}


def test_a_tilde_in_a_key_with_arguments_does_not_stop_the_plan(
    rabbitmq: RabbitMQ, management: Management, vhost: str
) -> None:
    found = topology(queues={"q": {"bindings": [TILDE]}})
    if rabbitmq.knows("4.3"):
        applied(found, management)
        assert plan(found, management).same
    else:
        with pytest.raises(TopologyError, match="cannot bear a binding with ~ and arguments"):
            look(found, management)
        assert management.get("queues", vhost) == []


def test_such_a_binding_that_somebody_cannot_read_is_told(
    rabbitmq: RabbitMQ, user: Callable[..., Management], management: Management, vhost: str
) -> None:
    management.put("queues", vhost, "q", body={"durable": True})
    connection = connect(management.address)
    try:
        connection.default_channel.queue_bind("q", "amq.topic", "a~b", arguments={"own": 1})
    finally:
        connection.release()
    found = topology(queues={"q": {"bindings": [TILDE]}})
    if not rabbitmq.knows("4.3"):
        with pytest.raises(BrokerUnavailable, match=r"~ in its routing key .* older than 4\.3"):
            plan(found, management)
        return
    with (
        user("policymaker") as client,
        pytest.raises(AccessRefused, match=r"~ in its routing key .* administrator"),
    ):
        plan(found, client)


def test_all_types_of_queue_take_their_settings(management: Management) -> None:
    found = topology(
        exchanges={"dead": {"type": "fanout", "internal": True}},
        queues={
            "quorum": {
                "single_active_consumer": True,
                "quorum_initial_group_size": 1,
                "delivery_limit": -1,
                "message_ttl": "14d",
                "expires": "1d",
                "max_length_bytes": "1GiB",
                "consumer_timeout": "2h",
                "consumer_disconnected_timeout": "1m",
                "queue_leader_locator": "balanced",
                "target_group_size": 1,
                "overflow": "drop-head",
                "dead_letter": {"exchange": "dead", "strategy": "at-most-once"},
            },
            "classic": {
                "type": "classic",
                "max_priority": 5,
                "single_active_consumer": True,
                "auto_delete": True,
                "overflow": "reject-publish-dlx",
                "dead_letter": {"exchange": "dead", "routing_key": "k"},
                "max_length": 1,
                "max_length_bytes": 5,
                "message_ttl": "0",
                "expires": "1h",
                "queue_leader_locator": "client-local",
                "arguments": {"x-max-length": 7, "x-own": [1, "two", True, {"three": 3.5}]},
            },
            "stream": {
                "type": "stream",
                "max_age": "7d",
                "max_length_bytes": "10GB",
                "stream_max_segment_size_bytes": "100MB",
                "stream_filter_size_bytes": 32,
                "initial_cluster_size": 1,
                "queue_leader_locator": "balanced",
            },
        },
    )
    applied(found, management)
    again = plan(found, management)
    assert again.same
    assert again.warnings == ()


# -- drift ----------------------------------------------------------------------------


Drift = Callable[[Management, str], Any]


def _generated(management: Management, vhost: str) -> dict[str, Any]:
    policy: dict[str, Any] = management.get("policies", vhost)[0]
    return policy


def _loosen(management: Management, vhost: str) -> None:
    policy = _generated(management, vhost)
    policy["definition"]["max-length"] = 9
    management.put("policies", vhost, policy["name"], body=policy)


@pytest.mark.parametrize(
    ("drift", "action", "kind", "attributes"),
    [
        (lambda m, v: m.delete("queues", v, "jobs.dead"), "create", "queue", []),
        (lambda m, v: m.delete("exchanges", v, "dead"), "create", "exchange", []),
        (
            lambda m, v: m.delete("bindings", v, "e", "jobs", "q", "jobs.high", "high.%23"),
            "create",
            "binding",
            [],
        ),
        (_loosen, "update", "policy", ["definition.max-length"]),
        (
            lambda m, v: m.delete("policies", v, _generated(m, v)["name"]),
            "create",
            "policy",
            [],
        ),
    ],
)
def test_drift_is_named_and_mended(
    management: Management, vhost: str, drift: Drift, action: str, kind: str, attributes: list[str]
) -> None:
    found = topology(**BANDS)
    applied(found, management)
    drift(management, vhost)
    changes = plan(found, management).changes
    # A binding goes with the queue or exchange at its end.
    first, *rest = changes
    assert (first.action, first.identity.kind) == (action, kind)
    assert [each.attribute for each in first.differences] == attributes
    assert {each.identity.kind for each in rest} <= {"binding"}
    applied(found, management)
    assert plan(found, management).same


def test_what_others_made_is_left_alone(management: Management, vhost: str) -> None:
    found = topology(**BANDS)
    applied(found, management)
    management.put("queues", vhost, "theirs", body={"durable": True})
    management.put("exchanges", vhost, "theirs", body={"type": "topic", "durable": True})
    body = {"pattern": "theirs", "definition": {"max-length": 1}}
    management.put("policies", vhost, "theirs", body=body)
    management.post("bindings", vhost, "e", "theirs", "q", "jobs.high", body={"routing_key": "k"})
    again = plan(found, management)
    assert again.same
    assert sorted(each.kind for each in again.unmanaged) == [
        "binding",
        "exchange",
        "policy",
        "queue",
    ]


def test_a_changed_setting_moves_to_another_policy_and_the_old_one_goes(
    management: Management, vhost: str
) -> None:
    applied(topology(queues={"a": {"max_length": 5}, "b": {"max_length": 5}}), management)
    found = topology(queues={"a": {"max_length": 5}, "b": {"max_length": 6}})
    applied(found, management)
    found = topology(queues={"a": {"max_length": 7}, "b": {"max_length": 6}})
    applied(found, management)
    assert {each["pattern"] for each in management.get("policies", vhost)} == {"^(a)$", "^(b)$"}
    in_force = read_effective(management, vhost)
    assert in_force == {"a": {"max-length": 7}, "b": {"max-length": 6}}


# -- what cannot be done --------------------------------------------------------------


def test_what_rabbitmq_cannot_change_is_left_with_the_reason_and_nothing_is_lost(
    rabbitmq: Any, management: Management, vhost: str
) -> None:
    body = {"durable": True, "arguments": {"x-queue-type": "classic", "x-max-length": 10}}
    management.put("queues", vhost, "jobs.high", body=body)
    message = {
        "properties": {},
        "routing_key": "jobs.high",
        "payload": "kept",
        "payload_encoding": "string",
    }
    management.post("exchanges", vhost, "amq.default", "publish", body=message)
    found = topology(**BANDS)
    first = plan(found, management)
    outcome = apply(first, management)
    (left,) = outcome.not_done
    assert left.reason == (
        "RabbitMQ cannot change type, arguments.x-max-length of a queue that exists"
    )
    assert not outcome.complete
    # All else is done, and the message is where it was.
    assert [change.action for change in plan(found, management).changes] == ["replace"]
    got = management.post(
        "queues",
        vhost,
        "jobs.high",
        "get",
        body={"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"},
    )
    assert [each["payload"] for each in got] == ["kept"]


def test_a_204_without_a_change_is_found_out(
    rabbitmq: RabbitMQ, management: Management, vhost: str
) -> None:
    type_ = "x-modulus-hash" if rabbitmq.knows("4.3") else "x-local-random"
    exchange = {"type": type_, "arguments": {"hash-header": "a"}}
    there = topology(exchanges={"x": exchange})
    applied(there, management)
    wanted = topology(exchanges={"x": {**exchange, "arguments": {"hash-header": "b"}}})
    # A plan from before somebody else created the exchange: RabbitMQ answers 204 to it.
    stale = make_plan(
        compile_topology(wanted, vhost=vhost),
        replace(observe(management, vhost), objects={}),
    )
    without_vhost = replace(
        stale, changes=tuple(c for c in stale.changes if c.identity.kind != "vhost")
    )
    outcome = apply(without_vhost, management)
    assert outcome.done == ()
    (failure,) = outcome.failed
    assert failure.reason == (
        "RabbitMQ said that it declared exchange 'x', but arguments.hash-header is 'a', not 'b'"
    )


def test_a_failure_half_way_leaves_an_account_and_the_next_apply_goes_on(
    management: Management, vhost: str
) -> None:
    mended = topology(
        exchanges={"a": {"type": "topic"}, "b": {"type": "topic"}},
        queues={"q": {"bindings": [{"exchange": "a"}]}},
    )
    stale = plan(mended, management)
    # Made by hand meanwhile, as something else: RabbitMQ refuses to declare it.
    management.put("exchanges", vhost, "b", body={"type": "fanout"})
    outcome = apply(stale, management)
    assert [str(change.identity) for change in outcome.done] == ["exchange 'a'"]
    assert [each.change.identity.name for each in outcome.failed] == [("b",)]
    assert isinstance(outcome.error, ProvisioningFailed)
    assert [change.identity.kind for change in outcome.not_done] == ["queue", "binding"]
    management.delete("exchanges", vhost, "b")
    assert len(applied(mended, management).done) == 3
    assert plan(mended, management).same


def test_a_policy_of_others_that_wins_is_reported(management: Management, vhost: str) -> None:
    body = {"pattern": "^jobs", "definition": {"max-length": 1}, "priority": 200}
    management.put("policies", vhost, "rival", body=body)
    first = plan(topology(**BANDS), management)
    assert "policy 'rival' (priority 200) hides" in first.warnings[0]
    outcome = apply(first, management)
    assert not outcome.complete
    assert "is not in force on queue 'jobs.high'" in outcome.warnings[0]


@pytest.fixture
def user(management: Management, vhost: str) -> Iterator[Callable[..., Management]]:
    """Make a user with a tag and rights; returns a client that is logged in as it."""
    name = f"u-{uuid.uuid4().hex}"
    clients: list[Management] = []

    def make(tags: str, *, configure: str = ".*") -> Management:
        management.put("users", name, body={"password": "pw", "tags": tags})
        rights = {"configure": configure, "write": ".*", "read": ".*"}
        management.put("permissions", vhost, name, body=rights)
        clients.append(Management(replace(management.address, user=name, password="pw")))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
    management.delete("users", name)


def test_a_policymaker_can_apply_all_but_the_virtual_host(
    user: Callable[..., Management],
) -> None:
    with user("policymaker") as client:
        found = topology(**BANDS)
        applied(found, client)
        assert plan(found, client).same


def test_a_missing_tag_is_said_before_anything_is_written(
    user: Callable[..., Management], management: Management, vhost: str
) -> None:
    with user("management") as client:
        first = plan(topology(**BANDS), client)
        with pytest.raises(AccessRefused, match="policymaker; nothing was written"):
            apply(first, client)
    assert plan(topology(**BANDS), management).changes == first.changes


@pytest.mark.parametrize("tags", ["policymaker", "administrator"])
def test_a_missing_configure_right_is_said_before_anything_is_written(
    user: Callable[..., Management], management: Management, tags: str
) -> None:
    with user(tags, configure="^$") as client:
        first = plan(topology(**BANDS), client)
        with pytest.raises(AccessRefused, match=r"may not configure exchange 'dead'.*nothing was"):
            apply(first, client)
    assert plan(topology(**BANDS), management).changes == first.changes


def test_a_user_without_the_tag_cannot_even_plan(user: Callable[..., Management]) -> None:
    with user("") as client, pytest.raises(AccessRefused, match="Not management user"):
        plan(topology(**BANDS), client)


def test_the_reference_file_applies(
    rabbitmq: RabbitMQ, management: Management, tmp_path: Path
) -> None:
    found, _ = topology_of(tmp_path, reference_for(rabbitmq))
    applied(found, management)
    assert plan(found, management).same
