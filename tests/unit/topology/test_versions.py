"""What an older RabbitMQ lacks: said by lint and the plan, and left out of what is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.errors import TopologyError
from broker.topology import Topology
from broker.topology.compile import compile_topology
from broker.topology.lint import check
from broker.topology.load import read
from broker.topology.objects import POLICY, VHOST, Identity
from broker.topology.versions import losses, refuse_harmful

TILDE = {"exchange": "amq.topic", "routing_key": "a~b", "arguments": {"x": 1}}
NEW: dict[str, Any] = {
    "vhost": {"name": "v", "protected_from_deletion": True},
    "queues": {
        name: {
            "retry": {"delay": "1s", "max_delay": "1m", "limit": 5},
            "consumer_disconnected_timeout": "1m",
            "max_length": 9,
        }
        for name in ("a", "b", "c", "d")
    },
}


def topology(**sections: Any) -> Topology:
    return Topology.model_validate({"version": 1, "name": "t", **sections})


@pytest.mark.parametrize(
    ("requires", "version"),
    [("4.0", None), ("4.0", "4.3.6"), (None, "4.0.5")],
    ids=["asked for", "asked for, newer there", "there"],
)
def test_what_it_lacks_is_left_out(requires: str | None, version: str | None) -> None:
    found = topology(**NEW, broker={"requires": requires})
    objects = compile_topology(found, version=version).objects
    own = Identity(POLICY, ("t.delays",))
    (policy,) = (
        each for each in objects.values() if each.identity.kind == POLICY and each.identity != own
    )
    assert policy.attributes["definition"] == {"delivery-limit": 5, "max-length": 9}
    assert objects[Identity(VHOST, ("v",))].attributes == {}


def test_the_newest_lacks_nothing() -> None:
    found = topology(**NEW)
    assert compile_topology(found, version="4.3.6") == compile_topology(found)
    assert list(losses(found, "4.3.6")) == []
    assert [each.rule for each in check(found) if each.rule == "needs-version"] == []


def test_the_plan_says_once_for_each_key_what_is_left_out() -> None:
    assert list(losses(topology(**NEW), "4.0.5")) == [
        "RabbitMQ 4.0.5 is older than 4.1 and does not know protected_from_deletion"
        " (vhost.protected_from_deletion): it is left out",
        "RabbitMQ 4.0.5 is older than 4.3 and does not know consumer_disconnected_timeout"
        " (queues.a, queues.b, queues.c and 1 more): it is left out",
        "RabbitMQ 4.0.5 is older than 4.3 and does not know retry with a delay (queues.a,"
        " queues.b, queues.c and 1 more): workers have what failed wait on the delay ladder"
        " instead, in whole seconds; what others return comes again at once",
    ]


def test_lint_says_it_at_each_place() -> None:
    queues = {"a": {**NEW["queues"]["a"], "bindings": [TILDE]}}
    found = topology(vhost=NEW["vhost"], queues=queues, broker={"requires": "4.0"})
    assert {each.path for each in check(found) if each.rule == "needs-version"} == {
        ("vhost", "protected_from_deletion"),
        ("queues", "a", "retry"),
        ("queues", "a", "consumer_disconnected_timeout"),
        ("queues", "a", "bindings", 0),
    }


def test_a_binding_over_which_an_older_one_fails_is_refused() -> None:
    found = topology(queues={"q": {"bindings": [TILDE]}})
    refuse_harmful(found, "4.3.0")
    with pytest.raises(TopologyError, match=r"RabbitMQ 4\.2\.1 .* ~ and arguments.* list any"):
        refuse_harmful(found, "4.2.1")
    harmless = {**TILDE, "arguments": {}}
    refuse_harmful(topology(queues={"q": {"bindings": [harmless]}}), "4.0.5")


def test_a_place_that_several_queues_share_is_said_once(tmp_path: Path) -> None:
    file = tmp_path / "topology.yaml"
    file.write_text("""
version: 1
name: t
broker: {requires: "4.0"}
queues:
  a: &band
    retry: {delay: 1s, max_delay: 1m}
  b: {<<: *band}
""")
    assert [each.rule for each in read(file)[1]] == ["needs-version"]
