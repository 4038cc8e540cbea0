"""Definitions files of RabbitMQ 3, and those that people write."""

from __future__ import annotations

from typing import Any

import pytest

from broker.errors import TopologyError
from broker.topology.export import Scope, export
from broker.topology.export.definitions import choose_vhost, objects_of
from broker.topology.export.from_3 import brought_over
from broker.topology.objects import POLICY, QUEUE, Identity, Objects
from broker.topology.ownership import Record, Records


def queue(name: str, vhost: str = "prod", **arguments: Any) -> dict[str, Any]:
    named = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    return {
        "name": name,
        "vhost": vhost,
        "durable": True,
        "auto_delete": False,
        "arguments": named,
    }


def policy(name: str, **definition: Any) -> dict[str, Any]:
    return {
        "name": name,
        "vhost": "prod",
        "pattern": f"^{name}",
        "apply-to": "queues",
        "priority": 0,
        "definition": {key.replace("_", "-"): value for key, value in definition.items()},
    }


OLD: dict[str, Any] = {
    "rabbit_version": "3.8.9",
    "vhosts": [{"name": "prod"}, {"name": "stage"}],
    "users": [
        # Tags with commas, hashes from before there was a choice of algorithms.
        {"name": "old", "password_hash": "pyQyqKIF5yt0XLk6hStH2OQkYP4=", "tags": "management,own"},
        {"name": "plain", "password": "not for a file", "tags": ""},
    ],
    "permissions": [
        {"user": "old", "vhost": "stage", "configure": "", "write": "", "read": ""},
    ],
    "policies": [
        policy("ha", ha_mode="all", ha_sync_mode="automatic", ha_sync_batch_size=1),
        policy("both", ha_mode="exactly", ha_params=2, max_length=5),
        policy("place", queue_master_locator="min-masters"),
    ],
    "queues": [
        queue("plain"),
        queue("elsewhere", vhost="stage"),
        queue("place", queue_master_locator="client-local"),
        queue("first", queue_version=1, max_length=3),
    ],
    "exchanges": [{"name": "x", "vhost": "prod", "type": "topic"}],
    "bindings": [
        {"source": "x", "vhost": "prod", "destination": "plain", "destination_type": "queue"}
    ],
}


@pytest.fixture
def objects() -> Objects:
    return objects_of(OLD, "prod", file="definitions.json")


def test_mirroring_goes_and_what_a_policy_says_besides_stays(objects: Objects) -> None:
    kept, left = brought_over(objects)
    policies = {
        identity.name[0]: each.attributes["definition"]
        for identity, each in kept.items()
        if identity.kind == POLICY
    }
    assert policies == {"both": {"max-length": 5}, "place": {"queue-leader-locator": "balanced"}}
    told = {str(each.identity): each.reason for each in left}
    assert "ha-mode, ha-sync-batch-size, ha-sync-mode" in told["policy 'ha'"]
    assert "ha-mode, ha-params" in told["policy 'both'"]


def test_arguments_that_are_refused_now_are_renamed_or_go(objects: Objects) -> None:
    kept, left = brought_over(objects)
    assert kept[Identity(QUEUE, ("place",))].attributes["arguments"] == {
        "x-queue-leader-locator": "client-local"
    }
    assert kept[Identity(QUEUE, ("first",))].attributes["arguments"] == {"x-max-length": 3}
    assert "queue 'first': x-queue-version 1, which RabbitMQ 4.3 refuses" in map(str, left)


def test_the_file_is_in_order_and_holds_one_virtual_host_and_no_password(
    objects: Objects,
) -> None:
    kept, _ = brought_over(objects)
    made = export(kept, scope=Scope("t", Records(Record("t", "prod"))), vhost="prod")
    assert made.complaints == ()
    assert "lint" not in made.document
    assert set(made.document["queues"]) == {"plain", "place", "first"}
    assert made.document["vhost"]["default_queue_type"] == "classic"
    assert made.document["exchanges"] == {"x": {"type": "topic"}}
    assert made.document["queues"]["plain"] == {"bindings": [{"exchange": "x"}]}
    assert "not for a file" not in str(made)


def test_of_several_virtual_hosts_one_must_be_named() -> None:
    with pytest.raises(TopologyError, match="choose by --vhost 'prod', 'stage'"):
        choose_vhost(OLD, None, file="definitions.json")
