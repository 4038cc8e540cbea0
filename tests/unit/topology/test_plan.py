"""What the plan makes of wanted and present objects."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.topology import Topology
from broker.topology.compile import compile_topology
from broker.topology.lint import check
from broker.topology.objects import (
    BINDING,
    CREATION_ORDER,
    EXCHANGE,
    POLICY,
    QUEUE,
    VHOST,
    Desired,
    Identity,
    Object,
    Observed,
)
from broker.topology.plan import Plan, make_plan
from tests.unit.topology.samples import topologies, topology


def observed(desired: Desired, **others: Object) -> Observed:
    """Return a broker that has all that is wanted, and other objects."""
    objects = dict(desired.objects) | {each.identity: each for each in others.values()}
    return Observed("4.3.6", desired.vhost, objects)


def drifted(desired: Desired, identity: Identity, **attributes: Any) -> Observed:
    there = desired.objects[identity]
    changed = replace(there, attributes=dict(there.attributes) | attributes)
    return observed(desired, changed=changed)


def test_an_empty_broker_gets_everything_in_the_order_of_dependence() -> None:
    found = topology(
        exchanges={"jobs": {"type": "topic"}},
        queues={"q": {"max_length": 5, "bindings": [{"exchange": "jobs"}]}},
    )
    plan = make_plan(compile_topology(found), Observed("4.3.6", "/", {}))
    kinds = [change.identity.kind for change in plan.changes]
    assert kinds == [VHOST, EXCHANGE, POLICY, QUEUE, BINDING]
    assert kinds == sorted(kinds, key=CREATION_ORDER.index)
    assert {change.action for change in plan.changes} == {"create"}
    assert not plan.same


@given(topologies())
def test_generated_topologies_have_no_errors_and_plan_to_nothing(found: Topology) -> None:
    assert [each for each in check(found) if each.level == "error"] == []
    desired = compile_topology(found)
    plan = make_plan(desired, observed(desired))
    assert plan.same
    assert plan.unmanaged == ()


@given(topologies(), st.data())
def test_what_is_missing_is_created_and_nothing_else(found: Topology, data: st.DataObject) -> None:
    desired = compile_topology(found)
    kept = data.draw(st.sets(st.sampled_from(sorted(desired.objects))))
    there = {identity: desired.objects[identity] for identity in kept}
    plan = make_plan(desired, Observed("4.3.6", desired.vhost, there))
    assert {change.identity for change in plan.changes} == desired.objects.keys() - kept
    kinds = [CREATION_ORDER.index(change.identity.kind) for change in plan.changes]
    assert kinds == sorted(kinds)


@given(topologies(), topologies())
def test_a_plan_is_json_and_depends_on_no_order(one: Topology, other: Topology) -> None:
    desired, before = compile_topology(one), compile_topology(other)
    backwards = Observed("4.3.6", "/", dict(reversed(before.objects.items())))
    plan = make_plan(desired, Observed("4.3.6", "/", before.objects))
    assert json.loads(json.dumps(plan.document())) == plan.document()
    assert make_plan(desired, backwards).document() == plan.document()


def only(plan: Plan) -> Any:
    (change,) = plan.changes
    return change


QUEUES = {"q": {"max_length": 5}}


def test_a_policy_changed_by_hand_is_changed_back() -> None:
    desired = compile_topology(topology(queues=QUEUES))
    (policy,) = (identity for identity in desired.objects if identity.kind == POLICY)
    definition = {"max-length": 9, "expires": 1}
    change = only(make_plan(desired, drifted(desired, policy, definition=definition)))
    assert change.action == "update"
    assert [(each.attribute, each.before, each.after) for each in change.differences] == [
        ("definition.max-length", 9, 5),
        ("definition.expires", 1, None),
    ]


@pytest.mark.parametrize(
    ("attributes", "attribute"),
    [({"type": "classic"}, "type"), ({"arguments": {"x-max-length": 4}}, "arguments.x-max-length")],
)
def test_a_queue_that_differs_must_be_replaced(attributes: Any, attribute: str) -> None:
    desired = compile_topology(topology(queues=QUEUES))
    change = only(make_plan(desired, drifted(desired, Identity(QUEUE, ("q",)), **attributes)))
    assert (change.action, change.blocked) == ("replace", True)
    assert change.reason == f"RabbitMQ cannot change {attribute} of a queue that exists"


def test_an_argument_of_an_exchange_is_a_difference_although_rabbitmq_ignores_it() -> None:
    exchange = {"type": "x-consistent-hash", "arguments": {"hash-header": "a"}}
    desired = compile_topology(topology(exchanges={"x": exchange}))
    there = drifted(desired, Identity(EXCHANGE, ("x",)), arguments={"hash-header": "b"})
    assert only(make_plan(desired, there)).action == "replace"


def test_true_is_not_one() -> None:
    desired = compile_topology(topology(queues={"q": {"arguments": {"x-own": True}}}))
    there = drifted(desired, Identity(QUEUE, ("q",)), arguments={"x-own": 1})
    assert only(make_plan(desired, there)).action == "replace"


def test_of_a_virtual_host_only_what_the_file_says_counts() -> None:
    there = Object(Identity(VHOST, ("/",)), {"default_queue_type": "classic", "tags": ["a"]})
    silent = compile_topology(topology())
    assert make_plan(silent, Observed("4.3.6", "/", {there.identity: there})).same
    says = compile_topology(topology(vhost={"default_queue_type": "quorum"}))
    change = only(make_plan(says, Observed("4.3.6", "/", {there.identity: there})))
    assert (change.action, change.differences[0].before) == ("update", "classic")


def test_objects_of_others_are_listed_and_left_alone() -> None:
    desired = compile_topology(topology(queues=QUEUES))
    hand = Object(Identity(POLICY, ("by hand",)), {**_POLICY, "priority": 0})
    other = Object(Identity(POLICY, ("u.generated.quorum_queues.0123456789",)), {**_POLICY})
    queue = Object(Identity(QUEUE, ("theirs",)), {})
    binding = Object(Identity(BINDING, ("amq.topic", "queue", "q", "k", "{}")), {})
    there = observed(desired, hand=hand, other=other, queue=queue, binding=binding)
    plan = make_plan(desired, there)
    assert plan.same
    assert set(plan.unmanaged) == {each.identity for each in (hand, queue, binding)}
    assert plan.others == {other.identity: "u"}


def test_own_policies_that_nothing_needs_any_more_are_deleted_last() -> None:
    old = compile_topology(topology(queues=QUEUES))
    new = compile_topology(topology(queues={"q": {"max_length": 6}}))
    plan = make_plan(new, observed(old))
    assert [change.action for change in plan.changes] == ["create", "delete"]


def test_a_policy_lets_go_of_a_queue_after_another_has_taken_it_over() -> None:
    def wanted(**lengths: int) -> Desired:
        queues = {name: {"max_length": length} for name, length in lengths.items()}
        return compile_topology(topology(queues=queues))

    # "b" moves between two policies that both exist, once in each direction of their names.
    for old, new in (({"b": 1}, {"b": 2}), ({"b": 2}, {"b": 1})):
        plan = make_plan(wanted(a=1, c=2, **new), observed(wanted(a=1, c=2, **old)))
        first, last = (change.after for change in plan.changes)
        assert first is not None
        assert last is not None
        assert "b" in first.covers
        assert "b" not in last.covers


_POLICY = {"apply-to": "all", "pattern": ".*", "priority": 1, "definition": {"max-length": 1}}


def test_a_policy_that_would_hide_a_generated_one_is_named_with_it() -> None:
    desired = compile_topology(topology(queues=QUEUES))
    rival = Object(Identity(POLICY, ("rival",)), {**_POLICY, "priority": 100})
    (warning,) = make_plan(desired, observed(desired, rival=rival)).warnings
    assert "policy 'rival' (priority 100) hides policy 't.generated.quorum_queues." in warning
    assert "'q'" in warning


@pytest.mark.parametrize(
    "harmless", [{"priority": 99}, {"apply-to": "streams"}, {"pattern": "^other$"}]
)
def test_a_policy_that_hides_nothing_is_not_warned_of(harmless: dict[str, Any]) -> None:
    desired = compile_topology(topology(queues=QUEUES))
    rival = Object(Identity(POLICY, ("rival",)), {**_POLICY, "priority": 500} | harmless)
    assert make_plan(desired, observed(desired, rival=rival)).warnings == ()


def test_a_policy_that_is_there_but_not_in_force_is_warned_of() -> None:
    desired = compile_topology(topology(queues=QUEUES))
    there = replace(observed(desired), effective={"q": {"expires": 5}})
    (warning,) = make_plan(desired, there).warnings
    assert "is not in force on queue 'q' (max-length missing)" in warning
