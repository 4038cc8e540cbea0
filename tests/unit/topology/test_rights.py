"""What `verify-rights` expects of users whose rights are written out."""

from __future__ import annotations

from broker.topology import Topology
from broker.topology.rights import STRANGER, Expectation, expectations


def of_user(**user: object) -> list[Expectation]:
    topology = Topology.model_validate(
        {
            "version": 1,
            "name": "t",
            "exchanges": {"t": {"type": "topic"}, "d": {"type": "direct"}},
            "queues": {"q": {"bindings": [{"exchange": "t", "routing_key": "c.bound"}]}},
            "jobs": {"j": {"exchange": "t", "routing_key": "a.job"}},
            "users": {"u": {"password_hash": "", **user}},
        }
    )
    return expectations(topology, topology.users["u"])


def writes(found: list[Expectation]) -> set[tuple[str, str, bool]]:
    return {(each.name, each.routing_key, each.allowed) for each in found if each.verb == "write"}


def test_a_topic_permission_is_tried_with_the_keys_that_the_file_names() -> None:
    found = of_user(
        permissions={"configure": "^$", "write": "^(t|d)$", "read": "^$"},
        topic_permissions={"t": {"write": "^a\\."}},
    )
    assert writes(found) == {
        ("t", "a.job", True),
        ("t", "c.bound", False),
        ("t", STRANGER, False),
        ("d", "", True),
        ("", "", False),
    }


def test_without_one_any_key_will_do() -> None:
    found = of_user(permissions={"configure": "^$", "write": "^t$", "read": "^$"})
    assert writes(found) == {("t", "", True), ("d", "", False), ("", "", False)}
