"""What the plan makes of whose objects are whose; records, fingerprints and hints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from broker.reply_queue import new_name
from broker.topology import Topology
from broker.topology.celery_names import celery_owned
from broker.topology.changes import Change, Plan
from broker.topology.compile import compile_topology
from broker.topology.counts import Counts
from broker.topology.look import Look
from broker.topology.objects import (
    BINDING,
    EXCHANGE,
    POLICY,
    QUEUE,
    USER,
    Desired,
    Identity,
    Object,
    Observed,
    binding_identity,
)
from broker.topology.obsolete import Consent
from broker.topology.ownership import Record, Records, is_rabbitrys, name_of
from broker.topology.plan import candidates, make_plan
from broker.topology.rivals import reaches
from broker.topology.saved import SavedPlan, fingerprint
from tests.unit.topology.samples import topologies, topology

PRUNE = Consent(prune=True)
QUEUES = {"q": {"max_length": 5}, "other": {"max_length": 5}}


def there(desired: Desired, **others: Object) -> Observed:
    objects = dict(desired.objects) | {each.identity: each for each in others.values()}
    return Observed("4.3.6", desired.vhost, objects)


def recorded(desired: Desired, *others: Record) -> Records:
    objects = frozenset(each for each in desired.objects if each.kind != "vhost")
    protected = frozenset(e.identity for e in desired.objects.values() if e.protected)
    return Records(Record(desired.owner, desired.vhost, objects, protected), others)


def planned(old: Topology, new: Topology, **options: Any) -> Plan:
    """Return the plan for a new file on a broker that has the old one."""
    before = compile_topology(old)
    return make_plan(compile_topology(new), there(before), records=recorded(before), **options)


def of_another_type(old: Desired, new: Desired) -> list[Object]:
    """Return the queues of the old file that have another type in the new one."""
    return [
        each
        for identity, each in old.objects.items()
        if identity.kind == QUEUE
        and identity in new.objects
        and new.objects[identity].attributes["type"] != each.attributes["type"]
    ]


def applies(policy: Object, queues: Iterable[Object]) -> bool:
    """Say whether this is a policy for one of these queues."""
    return policy.identity.kind == POLICY and any(
        reaches(policy, type=each.attributes["type"], name=each.identity.name[0]) for each in queues
    )


# -- both directions ------------------------------------------------------------------


@given(topologies(), topologies())
def test_with_prune_nothing_own_is_left_and_without_nothing_is_deleted(
    old: Topology, new: Topology
) -> None:
    wanted, before = compile_topology(new), compile_topology(old)
    gone = {each for each in before.objects if each not in wanted.objects}
    pruned = planned(old, new, consent=PRUNE).changes
    deleted = {change.identity for change in pruned if change.action == "delete"}
    # A queue that waits to be replaced by one of another type goes on with the policy of its own.
    waiting = of_another_type(before, wanted)
    assert deleted == {each for each in gone if not applies(before.objects[each], waiting)}
    kept = planned(old, new)
    assert all(c.identity.kind == POLICY for c in kept.changes if c.action == "delete")
    assert {each.identity for each in kept.left} == {e for e in gone if e.kind != POLICY}


@given(topologies())
def test_after_an_apply_without_prune_the_plan_is_empty(old: Topology) -> None:
    new = topology(queues={"only": None})
    before = compile_topology(old)
    plan = make_plan(compile_topology(new), there(before), records=recorded(before))
    objects = dict(before.objects)
    for change in plan.changes:
        if change.action != "replace":
            objects.pop(change.identity, None)
            if change.after is not None:
                objects[change.identity] = change.after
    again = make_plan(
        compile_topology(new),
        Observed("4.3.6", before.vhost, objects),
        records=Records(Record("t", before.vhost, frozenset(objects))),
    )
    assert [change for change in again.changes if change.action != "replace"] == []


def test_deletions_come_last_in_the_reverse_order_of_creation() -> None:
    old = topology(
        exchanges={"x": {"type": "topic"}},
        queues={"q": {"max_length": 5, "bindings": [{"exchange": "x"}]}},
    )
    plan = planned(old, topology(queues={"new": None}), consent=PRUNE)
    assert [(c.action, c.identity.kind) for c in plan.changes] == [
        ("create", QUEUE),
        ("delete", BINDING),
        ("delete", QUEUE),
        ("delete", EXCHANGE),
        ("delete", POLICY),
    ]


def test_what_stays_keeps_its_generated_policy() -> None:
    plan = planned(topology(queues=QUEUES), topology(queues={"other": {"max_length": 5}}))
    assert plan.same
    plan = planned(topology(queues=QUEUES), topology(queues={"other": {"max_length": 6}}))
    (made, narrowed) = plan.changes
    assert (made.action, narrowed.action) == ("create", "update")
    assert narrowed.after is not None
    assert narrowed.after.attributes["pattern"] == "^(q)$"


def test_a_policy_lets_go_of_a_queue_after_the_queue_has_gone() -> None:
    plan = planned(
        topology(queues=QUEUES), topology(queues={"other": {"max_length": 5}}), consent=PRUNE
    )
    assert [(c.action, c.identity.kind) for c in plan.changes] == [
        ("delete", QUEUE),
        ("update", POLICY),
    ]


# -- what stands in the way -----------------------------------------------------------


@pytest.mark.parametrize(
    "held",
    [Counts(ready=1), Counts(unacknowledged=1), Counts(set_aside=1), Counts(dead_lettering=1)],
)
def test_a_queue_that_holds_something_is_not_deleted(held: Counts) -> None:
    old = topology(
        exchanges={"x": {"type": "topic"}}, queues={"q": {"bindings": [{"exchange": "x"}]}}
    )
    new = topology(exchanges={"x": {"type": "topic"}})
    assert candidates(planned(old, new, consent=PRUNE)) == ["q"]
    plan = planned(old, new, consent=PRUNE, counts={"q": held})
    assert all(change.hindrance for change in plan.changes)
    assert {change.identity.kind for change in plan.changes} == {QUEUE, BINDING}
    allowed = Consent(prune=True, nonempty=frozenset({"q"}))
    assert not any(
        change.hindrance
        for change in planned(old, new, consent=allowed, counts={"q": held}).changes
    )


def test_a_queue_that_another_topology_binds_is_not_deleted() -> None:
    before = compile_topology(topology(queues={"q": None}))
    binding = binding_identity(
        source="amq.topic", kind="queue", destination="q", routing_key="", arguments={}
    )
    plan = make_plan(
        compile_topology(topology()),
        there(before, theirs=Object(binding, {})),
        records=recorded(before, Record("other", "/", frozenset({binding}))),
        consent=PRUNE,
    )
    (change,) = plan.changes
    assert change.hindrance.startswith("topology 'other' has binding")


def test_protected_objects_are_neither_replaced_nor_deleted() -> None:
    old = topology(queues={"q": {"protected": True}})
    (change,) = planned(old, topology(queues={"q": {"type": "classic", "protected": True}})).changes
    assert change.hindrance.startswith("it is protected")
    plan = planned(old, topology(), consent=PRUNE)
    assert plan.same
    assert [each.identity.name for each in plan.left] == [("q",)]


def test_objects_of_other_topologies_are_named_as_such() -> None:
    desired = compile_topology(topology(queues={"q": None}))
    theirs = Object(Identity(QUEUE, ("theirs",)), {})
    records = recorded(desired, Record("other", "/", frozenset({theirs.identity})))
    plan = make_plan(desired, there(desired, theirs=theirs), records=records)
    assert (plan.others, plan.unmanaged) == ({theirs.identity: "other"}, ())


# -- replacements ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({}, {"x-max-length": 5}, "the key `max_length` is a policy (max-length)"),
        ({"x-max-length": 9}, {"x-max-length": 5}, "the policy (max-length) lowers it in place"),
        ({"x-max-length": 9}, {}, "`arguments: {x-max-length: 9}` keeps the queue as it is"),
        ({"x-max-length": 5}, {"x-max-length": 9}, ""),
        ({"x-overflow": "drop-head"}, {}, ""),
        ({}, {"x-max-length": 5, "x-single-active-consumer": True}, ""),
    ],
)
def test_a_replacement_says_which_policy_key_would_avoid_it(
    before: dict[str, Any], after: dict[str, Any], words: str
) -> None:
    desired = compile_topology(topology(queues={"q": None}))
    identity = Identity(QUEUE, ("q",))
    there_is, wanted = (
        replace(
            desired.objects[identity],
            attributes={**desired.objects[identity].attributes, "arguments": arguments},
        )
        for arguments in (before, after)
    )
    plan = make_plan(
        replace(desired, objects=dict(desired.objects) | {identity: wanted}),
        there(desired, q=there_is),
        counts={"q": Counts(ready=3, consumers=2)},
    )
    (change,) = plan.changes
    assert words in change.hint
    assert bool(words) == bool(change.hint)
    assert change.document()["holds"]["ready"] == 3
    assert str(change.counts) == "3 messages (3 ready), 2 consumers"


# -- Celery's own ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identity", "what"),
    [
        (Identity(EXCHANGE, ("celery_delayed_27",)), "native delayed delivery"),
        (Identity(EXCHANGE, ("reply.celery.pidbox",)), "remote control"),
        (Identity(QUEUE, ("celery@host.example.celery.pidbox",)), "remote control"),
        (Identity(QUEUE, ("12345678-1234-1234-1234-123456789abc",)), "replies"),
        (
            Identity(BINDING, ("celery_delayed_delivery", "exchange", "jobs", "#.key", "{}")),
            "native delayed delivery",
        ),
        (Identity(EXCHANGE, ("celery",)), None),
        (Identity(QUEUE, ("celery_delayed_reports",)), None),
        (Identity(POLICY, ("celeryev",)), None),
    ],
)
def test_celerys_own_objects_are_known_by_their_names(identity: Identity, what: str | None) -> None:
    assert celery_owned(identity) == what


def test_a_callers_reply_queue_is_neither_foreign_nor_taken_in() -> None:
    own = Identity(QUEUE, (new_name(),))
    assert is_rabbitrys(own)
    assert not is_rabbitrys(Identity(QUEUE, ("reply",)))
    desired = compile_topology(topology(queues=QUEUES))
    plan = make_plan(desired, there(desired, own=Object(own, {})), consent=PRUNE)
    assert plan.changes == ()
    assert own not in plan.unmanaged


# -- records and fingerprints ---------------------------------------------------------


@given(topologies())
def test_a_record_goes_round(found: Topology) -> None:
    record = recorded(compile_topology(found)).own
    assert Record.of(record.document()) == record


def test_no_two_records_share_a_name() -> None:
    pairs = [("a", "b.c"), ("a.b", "c"), ("a/b", "c"), ("a", "c"), ("b", "c")]
    assert len({name_of(vhost, owner) for vhost, owner in pairs}) == len(pairs)


def seen(found: Topology, observed: Observed, records: Records) -> Look:
    desired = compile_topology(found)
    return Look(desired, observed, records, make_plan(desired, observed, records=records))


def test_a_fingerprint_tells_what_changed_and_ignores_what_comes_and_goes() -> None:
    desired = compile_topology(topology(queues=QUEUES))
    records = recorded(desired)
    before = fingerprint(there(desired), records)
    exclusive = Object(Identity(QUEUE, ("amq.gen-x",)), {"exclusive": True})
    bound = Object(Identity(BINDING, ("amq.topic", "queue", "amq.gen-x", "", "{}")), {})
    celerys = Object(Identity(EXCHANGE, ("celeryev",)), {"type": "topic"})
    passing = there(desired, exclusive=exclusive, bound=bound, celerys=celerys)
    assert fingerprint(passing, records) == before
    queue = Object(Identity(QUEUE, ("by hand",)), {"type": "quorum"})
    after = fingerprint(there(desired, queue=queue), records)
    assert {kind for kind in before if before[kind] != after[kind]} == {QUEUE}
    mine = replace(records.own, protected=frozenset(list(records.own.objects)[:1]))
    after = fingerprint(there(desired), replace(records, own=mine))
    assert {kind for kind in before if before[kind] != after[kind]} == {"ownership"}


def test_a_saved_plan_has_no_values(tmp_path: Any) -> None:
    found = topology(queues={"q": {"max_length": 4_815_162}})
    path = tmp_path / "changes.plan"
    nothing = Observed("4.3.6", "/", {})
    SavedPlan.of(seen(found, nothing, Records(Record("t", "/"))), prune=False).write(path)
    assert "4815162" not in path.read_text()
    assert SavedPlan.read(path).vhost == "/"


def test_a_secret_is_shown_as_changed() -> None:
    user = Identity(USER, ("u",))
    before = Object(user, {"password_hash": "old", "tags": []})
    after = Object(user, {"password_hash": "new", "tags": []})
    observed = Observed("4.3.6", "/", {user: before})
    (change,) = make_plan(Desired("t", "/", {user: after}), observed).changes
    document = Change.document(change)
    assert document["differences"] == [
        {"attribute": "password_hash", "before": "(changed)", "after": "(changed)"}
    ]
    assert "old" not in str(document)
    assert "new" not in str(document)
