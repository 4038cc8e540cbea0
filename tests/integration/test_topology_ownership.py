"""Whose objects are whose: records, pruning, the lock, saved plans, drift, destroy."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.connection import connect
from broker.errors import AccessRefused, ApplyRefused, UnsupportedBroker
from broker.management import Management
from broker.topology import Topology
from broker.topology.apply import Outcome, apply
from broker.topology.destroy import destroy, plan_destroy
from broker.topology.drift import find_drift
from broker.topology.lock import ApplyLock
from broker.topology.look import Look, look
from broker.topology.objects import BINDING, EXCHANGE, POLICY, QUEUE, Identity
from broker.topology.observe import read_effective
from broker.topology.obsolete import Consent
from broker.topology.ownership import LOCK_NAME, read_record
from broker.topology.saved import SavedPlan
from tests.rabbitmq import RabbitMQ

Wait = Callable[[Callable[[], Any]], Any]

BANDS: dict[str, Any] = {
    "exchanges": {"jobs": {"type": "topic"}, "dead": {"type": "topic"}},
    "queues": {
        "high": {
            "bindings": [{"exchange": "jobs", "routing_key": "high.#"}],
            "dead_letter": {"exchange": "dead"},
            "max_length": 1000,
        },
        "dead": {"bindings": [{"exchange": "dead", "routing_key": "#"}]},
    },
}
PRUNE = Consent(prune=True)
QUICK_S = 0.2


@pytest.fixture
def management(rabbitmq: Any, vhost: str) -> Iterator[Management]:
    with Management(rabbitmq.address(vhost)) as client:
        yield client


def topology(name: str = "t", **sections: Any) -> Topology:
    return Topology.model_validate({"version": 1, "name": name, **sections})


def without(*queues: str, **more: Any) -> dict[str, Any]:
    left = {name: each for name, each in BANDS["queues"].items() if name not in queues}
    return {**BANDS, "queues": left, **more}


def applied(found: Topology, management: Management, consent: Consent | None = None) -> Outcome:
    plan = look(found, management, consent=consent).plan
    return apply(plan, management, consent=consent, settle_s=QUICK_S)


def names(management: Management, kind: str) -> set[str]:
    vhost = management.address.vhost_name
    return {each["name"] for each in management.get(kind, vhost)} - {LOCK_NAME}


def publish(management: Management, queue: str, count: int = 1) -> None:
    connection = connect(management.address)
    try:
        producer = connection.Producer(connection.channel())
        for _ in range(count):
            producer.publish("x", routing_key=queue, delivery_mode=2)
    finally:
        connection.release()


def held(management: Management) -> list[dict[str, Any]]:
    """Return the connections that hold the lock of the virtual host."""
    return [
        each
        for each in management.get("vhosts", management.address.vhost_name, "connections")
        if each.get("user_provided_name") == "rabbitry topology apply"
    ]


def until(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not come about in time"
        threading.Event().wait(0.05)
    return value


# -- the record -----------------------------------------------------------------------


def test_the_record_names_what_is_there_and_the_plan_is_empty(
    management: Management, vhost: str
) -> None:
    assert applied(topology(**BANDS), management).complete
    record = read_record(management, vhost, "t")
    assert record is not None
    kinds = sorted(each.kind for each in record.objects)
    assert kinds == [*[BINDING] * 2, *[EXCHANGE] * 2, POLICY, *[QUEUE] * 2]
    again = look(topology(**BANDS), management)
    assert (again.plan.same, again.plan.adopted, again.plan.unmanaged) == (True, (), ())


def test_what_is_there_already_is_taken_over(management: Management, vhost: str) -> None:
    management.put("exchanges", vhost, "x", body={"type": "topic"})
    found = topology(exchanges={"x": {"type": "topic"}})
    assert look(found, management).plan.adopted == (Identity(EXCHANGE, ("x",)),)
    applied(found, management)
    assert look(found, management).plan.adopted == ()
    assert applied(topology(), management, PRUNE).complete
    assert "x" not in names(management, "exchanges")


def test_two_topologies_share_a_virtual_host_and_leave_each_other_alone(
    management: Management,
) -> None:
    applied(topology(**BANDS), management)
    other = topology("other", exchanges={"theirs": {"type": "topic"}})
    applied(other, management)
    seen = look(other, management, consent=PRUNE).plan
    assert seen.same
    assert seen.others[Identity(QUEUE, ("high",))] == "t"
    assert seen.unmanaged == ()
    applied(topology(**without("high", "dead")), management, PRUNE)
    assert look(other, management).plan.same
    assert names(management, "queues") == set()


def test_an_object_of_another_topology_is_not_touched(management: Management) -> None:
    applied(topology(queues={"q": {"max_length": 5}}), management)
    rival = topology("rival", queues={"q": {"type": "classic"}})
    plan = look(rival, management).plan
    (change,) = (each for each in plan.changes if each.identity.kind == QUEUE)
    assert change.hindrance == "topology 't' manages it"
    with pytest.raises(ApplyRefused, match=r"topology 't' manages queue 'q'.*nothing was written"):
        apply(plan, management)
    # What agrees with the other's is no conflict, and stays the other's.
    same = topology("same", queues={"q": {}})
    assert applied(same, management).complete
    assert look(topology(), management).plan.left


def test_a_lost_record_is_made_again_by_the_next_apply(management: Management, vhost: str) -> None:
    applied(topology(**BANDS), management)
    before = read_record(management, vhost, "t")
    for each in management.get("global-parameters"):
        if each["name"].startswith("rabbitry.topology.") and each["value"]["vhost"] == vhost:
            management.delete("global-parameters", each["name"])
    applied(topology(**BANDS), management)
    assert read_record(management, vhost, "t") == before


# -- pruning --------------------------------------------------------------------------


def test_without_prune_it_is_left_with_its_settings(management: Management, vhost: str) -> None:
    applied(topology(**BANDS), management)
    fewer = topology(**without("high"))
    plan = look(fewer, management).plan
    assert plan.same
    assert {str(each.identity) for each in plan.left} == {
        "queue 'high'",
        "binding 'jobs' to queue 'high', key 'high.#'",
    }
    assert "--prune deletes it" in plan.left[0].reason
    applied(fewer, management)
    assert read_effective(management, vhost)["high"]["dead-letter-exchange"] == "dead"


def test_with_prune_own_objects_go_and_the_next_plan_is_empty(management: Management) -> None:
    applied(topology(**BANDS), management)
    management.put("queues", management.address.vhost_name, "foreign", body={"durable": True})
    fewer = topology(**without("high"))
    outcome = applied(fewer, management, PRUNE)
    assert outcome.complete, outcome
    assert [each.identity.kind for each in outcome.done] == [BINDING, QUEUE, POLICY]
    assert names(management, "queues") == {"dead", "foreign"}
    assert look(fewer, management, consent=PRUNE).plan.same


def test_a_queue_with_messages_stays_with_its_bindings(management: Management) -> None:
    applied(topology(**BANDS), management)
    publish(management, "high", 2)
    fewer = topology(**without("high"))
    outcome = applied(fewer, management, PRUNE)
    assert not outcome.complete
    (queue,) = (each for each in outcome.not_done if each.identity.kind == QUEUE)
    assert queue.hindrance.startswith("it holds 2 messages (2 ready), 0 consumers; --delete-none")
    assert look(topology(**BANDS), management).plan.same
    allowed = Consent(prune=True, nonempty=frozenset({"high"}))
    assert applied(fewer, management, allowed).complete
    assert names(management, "queues") == {"dead"}


# To RabbitMQ who gets a message from a quorum queue and keeps it is a consumer, too.
@pytest.mark.parametrize("state", ["unacknowledged", "set aside for a retry", "1 consumer"])
def test_what_a_passive_declare_does_not_see_keeps_a_queue_too(
    rabbitmq: RabbitMQ, management: Management, state: str
) -> None:
    queues = {"q": {"retry": {"delay": "10m"}}}
    applied(topology(queues=queues), management)
    publish(management, "q", 0 if state == "1 consumer" else 1)
    connection = connect(management.address)
    try:
        channel = connection.channel()
        if state == "1 consumer":
            channel.basic_consume("q")
        else:
            message = until(lambda: channel.basic_get("q"))
            if state != "unacknowledged":
                channel.basic_reject(message.delivery_tag, requeue=True)
                # RabbitMQ before 4.3 sets nothing aside.
                ready = 0 if rabbitmq.knows("4.3") else 1
                until(lambda: channel.queue_declare("q", passive=True).message_count == ready)
        # Statistics lag, so the plan may be early; whatever it says, the queue stays.
        plan = look(topology(), management, consent=PRUNE).plan
        outcome = apply(plan, management, consent=PRUNE)
        (queue,) = (each for each in outcome.not_done if each.identity.kind == QUEUE)
        if state == "set aside for a retry" and not rabbitmq.knows("4.3"):
            state = "1 ready"
        assert ("1 consumer" if state == "unacknowledged" else state) in queue.hindrance
        assert names(management, "queues") == {"q"}
    finally:
        connection.release()


def test_a_message_that_comes_while_it_is_watched_keeps_the_queue_and_its_bindings(
    management: Management,
) -> None:
    applied(topology(**BANDS), management)
    fewer = topology(**without("high"))
    plan = look(fewer, management, consent=PRUNE).plan
    assert not any(change.hindrance for change in plan.changes)
    publish(management, "high")
    outcome = apply(plan, management, consent=PRUNE, settle_s=QUICK_S)
    assert {each.identity.kind for each in outcome.not_done} >= {QUEUE, BINDING}
    assert "it holds 1 message (1 ready)" in str([each.hindrance for each in outcome.not_done])
    assert look(topology(**BANDS), management).plan.same


def test_what_is_protected_stays_protected_when_the_file_forgets_it(
    management: Management,
) -> None:
    queues = {"q": {"protected": True}}
    applied(topology(queues=queues), management)
    replaced = topology(queues={"q": {"protected": True, "type": "classic"}})
    (change,) = look(replaced, management).plan.changes
    assert change.hindrance.startswith("it is protected")
    outcome = apply(look(replaced, management).plan, management, consent=Consent(replace=True))
    assert outcome.not_done == (change,)
    plan = look(topology(), management, consent=PRUNE).plan
    assert plan.same
    assert plan.left[0].reason.startswith("it is protected")
    # The file has to say it, and apply has to be told.
    applied(topology(queues={"q": {"protected": False}}), management)
    assert applied(topology(), management, PRUNE).complete
    assert names(management, "queues") == set()


def test_celerys_own_are_named_and_left(management: Management, vhost: str) -> None:
    body = {"type": "topic", "durable": True}
    management.put("exchanges", vhost, "celery_delayed_3", body=body)
    management.put("exchanges", vhost, "celeryev", body=body)
    management.put("queues", vhost, str(uuid.uuid4()), body={"durable": True})
    plan = look(topology(), management, consent=PRUNE).plan
    assert sorted(plan.celery.values()) == ["events", "native delayed delivery", "replies"]
    assert plan.unmanaged == ()


# -- the lock -------------------------------------------------------------------------


def test_a_second_apply_is_refused_and_writes_nothing(management: Management) -> None:
    plan = look(topology(**BANDS), management).plan
    with (
        ApplyLock(management.address),
        pytest.raises(ApplyRefused, match="another apply is at work in virtual host"),
    ):
        apply(plan, management)
    assert names(management, "queues") == set()
    assert apply(plan, management).complete


def test_whoever_meets_the_lock_is_told_who_holds_it(management: Management, vhost: str) -> None:
    with ApplyLock(management.address, owner="other"):
        holder = re.escape(f"by user {management.address.user!r} in process {os.getpid()} on ")
        with pytest.raises(ApplyRefused, match=f"{vhost}': topology 'other', {holder}"):
            applied(topology(**BANDS), management)


def test_the_lock_outlives_its_heartbeats_while_nobody_looks_after_it(
    management: Management,
) -> None:
    with ApplyLock(management.address, heartbeat_s=1) as lock:
        (there,) = until(lambda: held(management))
        # Nothing but heartbeats comes from it; RabbitMQ ends a connection that misses two.
        # Management does not always tell of it.
        before = there.get("recv_cnt", 0)
        until(lambda: held(management)[0].get("recv_cnt", 0) >= before + 5)
        lock.check()


def test_a_lost_lock_stops_apply_and_the_next_goes_on(management: Management, vhost: str) -> None:
    plan = look(topology(**BANDS), management).plan

    def cut(change: Any) -> None:
        if change.identity.kind == EXCHANGE:
            (lock,) = until(lambda: held(management))
            management.delete("connections", lock["name"])

    outcome = apply(plan, management, on_done=cut)
    assert isinstance(outcome.error, ApplyRefused)
    assert "was lost" in str(outcome.error)
    assert {each.identity.kind for each in outcome.done} == {EXCHANGE}
    assert {each.identity.kind for each in outcome.not_done} == {POLICY, QUEUE, BINDING}
    until(lambda: LOCK_NAME not in {e["name"] for e in management.get("queues", vhost)})
    assert applied(topology(**BANDS), management).complete


def test_an_apply_that_is_killed_is_gone_on_with(
    management: Management, vhost: str, env: dict[str, str], tmp_path: Path
) -> None:
    count = 150
    lines = [f"  q{number}: {{type: classic, max_length: {number + 1}}}" for number in range(count)]
    path = tmp_path / "topology.yaml"
    path.write_text("version: 1\nname: t\nqueues:\n" + "\n".join(lines) + "\n")
    command = [sys.executable, "-m", "rabbitry", "topology", "apply", "--yes"]
    command += ["--topology", str(path)]
    with subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        until(lambda: len(management.get("policies", vhost)) > 2 or process.poll() is not None)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    found = Topology.load(path)
    there = look(found, management)
    own = there.records.own.objects
    # Whatever was made is recorded as own, whenever the kill came.
    assert all(each in own for each in there.observed.objects if each.kind in (POLICY, QUEUE))
    until(lambda: LOCK_NAME not in {e["name"] for e in management.get("queues", vhost)})
    assert applied(found, management).complete
    assert look(found, management).plan.same


# -- before the first write -----------------------------------------------------------


def test_a_feature_that_rabbitmq_denies_is_said_before_anything_is_written(
    management: Management,
) -> None:
    denied = {
        each["name"]
        for each in management.get("deprecated-features")
        # RabbitMQ 4.0 does not tell.
        if each.get("state") == "denied"
    }
    plan = look(topology(**BANDS), management).plan
    (queue,) = (each for each in plan.changes if each.identity == Identity(QUEUE, ("dead",)))
    assert queue.after is not None
    transient = replace(queue.after, attributes={**queue.after.attributes, "durable": False})
    changes = (*plan.changes, replace(queue, after=transient))
    if "transient_nonexcl_queues" in denied:
        with pytest.raises(UnsupportedBroker, match=r"denies queue 'dead'.*nothing was written"):
            apply(replace(plan, changes=changes), management)
        assert names(management, "exchanges").isdisjoint({"jobs", "dead"})


def test_no_rights_in_the_virtual_host_are_said_before_anything_is_written(
    management: Management, vhost: str
) -> None:
    user = f"u-{uuid.uuid4().hex}"
    management.put("users", user, body={"password": "pw", "tags": "administrator"})
    try:
        with Management(replace(management.address, user=user, password="pw")) as client:
            plan = look(topology(**BANDS), client).plan
            with pytest.raises(AccessRefused, match="has no permissions in virtual host"):
                apply(plan, client)
    finally:
        management.delete("users", user)
    assert names(management, "queues") == set()


# -- saved plans ----------------------------------------------------------------------


def test_a_saved_plan_holds_until_something_changes(
    management: Management, vhost: str, tmp_path: Path
) -> None:
    found = topology(**BANDS)
    path = tmp_path / "changes.plan"
    SavedPlan.of(look(found, management), prune=False).write(path)
    SavedPlan.read(path).check(look(found, management))
    with pytest.raises(ApplyRefused, match="the topology file has changed since"):
        SavedPlan.read(path).check(look(topology(**without("dead")), management))
    # What comes and goes by itself does not count.
    management.put("queues", vhost, str(uuid.uuid4()), body={"durable": True})
    SavedPlan.read(path).check(look(found, management))
    management.put("queues", vhost, "by hand", body={"durable": True})
    with pytest.raises(ApplyRefused, match=r"RabbitMQ has changed since .* \(queue\)"):
        SavedPlan.read(path).check(look(found, management))


# -- drift ----------------------------------------------------------------------------


def words(seen: Look) -> list[str]:
    return [str(each) for each in find_drift(seen)]


def test_drift_names_exactly_what_changed(management: Management, vhost: str) -> None:
    found = topology(**BANDS)
    applied(found, management)
    assert find_drift(look(found, management)) == []
    management.delete("exchanges", vhost, "dead")
    (policy,) = management.get("policies", vhost)
    body = {**policy, "definition": {**policy["definition"], "max-length": 7}}
    management.put("policies", vhost, policy["name"], body=body)
    assert words(look(found, management)) == [
        "exchange 'dead': deleted on the broker",
        f"policy {policy['name']!r}: changed on the broker",
        "binding 'dead' to queue 'dead', key '#': deleted on the broker",
    ]
    (changed,) = (each for each in find_drift(look(found, management)) if each.differences)
    (difference,) = changed.differences
    assert (difference.attribute, difference.before, difference.after) == (
        "definition.max-length",
        7,
        1000,
    )


def test_drift_tells_of_additions_that_alter_what_the_file_says(
    management: Management, vhost: str
) -> None:
    found = topology(**BANDS)
    applied(found, management)
    management.put("queues", vhost, "harmless", body={"durable": True})
    management.post("bindings", vhost, "e", "jobs", "q", "high", body={"routing_key": "more"})
    body = {"pattern": "^high$", "definition": {"max-length": 1}, "priority": 500}
    management.put("policies", vhost, "rival", body=body)
    management.put("operator-policies", vhost, "ops", body={**body, "apply-to": "queues"})
    assert words(look(found, management)) == [
        "operator policy 'ops': added on the broker, it applies to queue 'high'",
        "policy 'rival': added on the broker, it hides the file's policy on queue 'high'",
        "binding 'jobs' to queue 'high', key 'more': added on the broker",
    ]


def test_what_was_never_applied_is_told_from_what_was_deleted(management: Management) -> None:
    found = topology(exchanges={"x": {"type": "topic"}})
    assert words(look(found, management)) == [
        "exchange 'x': not on the broker: it was never applied"
    ]


# -- destroy --------------------------------------------------------------------------


def test_destroy_removes_what_it_manages_and_nothing_else(
    management: Management, vhost: str
) -> None:
    management.put("queues", vhost, "theirs", body={"durable": True})
    applied(topology(**BANDS), management)
    applied(topology("other", exchanges={"others": {"type": "topic"}}), management)
    plan = plan_destroy("t", vhost, management)
    outcome = destroy(plan, management, settle_s=QUICK_S)
    assert outcome.complete, outcome
    assert [each.identity.kind for each in outcome.done] == [
        *[BINDING] * 2,
        *[QUEUE] * 2,
        *[EXCHANGE] * 2,
        POLICY,
    ]
    assert read_record(management, vhost, "t") is None
    assert names(management, "queues") == {"theirs"}
    assert "others" in names(management, "exchanges")
    assert plan_destroy("t", vhost, management).same


def test_destroy_keeps_messages_and_what_is_protected(management: Management, vhost: str) -> None:
    queues = {"full": {}, "kept": {"protected": True}, "empty": {}}
    applied(topology(queues=queues), management)
    publish(management, "full")
    outcome = destroy(plan_destroy("t", vhost, management), management, settle_s=QUICK_S)
    assert not outcome.complete
    assert names(management, "queues") == {"full", "kept"}
    record = read_record(management, vhost, "t")
    assert record is not None
    assert {each.name[0] for each in record.objects} == {"full", "kept"}


def test_a_queue_that_destroy_keeps_keeps_what_it_needs(management: Management, vhost: str) -> None:
    found = topology(**{**BANDS, "queues": {**BANDS["queues"], "idle": {}}})
    applied(found, management)
    publish(management, "high")
    outcome = destroy(plan_destroy("t", vhost, management), management, settle_s=QUICK_S)
    # What it dead-letters must arrive somewhere, too.
    assert {str(each.identity) for each in outcome.done} == {"queue 'idle'"}
    assert names(management, "queues") == {"high", "dead"}
    assert len(management.get("exchanges", vhost, "dead", "bindings", "source")) == 1
    assert read_effective(management, vhost)["high"]["dead-letter-exchange"] == "dead"
    assert names(management, "exchanges") >= {"jobs", "dead"}


def test_destroy_takes_the_virtual_host_that_apply_made(rabbitmq: Any) -> None:
    vhost = f"made by apply/{uuid.uuid4().hex}"
    found = topology(**BANDS)
    with Management(rabbitmq.address(vhost)) as management:
        try:
            assert applied(found, management).complete
            management.put("queues", vhost, "theirs", body={"durable": True})
            plan = plan_destroy("t", vhost, management)
            assert plan.changes[-1].hindrance.startswith("it holds what this topology does not")
            management.delete("queues", vhost, "theirs")
            plan = plan_destroy("t", vhost, management)
            assert destroy(plan, management, settle_s=QUICK_S).complete
            assert vhost not in {each["name"] for each in management.get("vhosts")}
            assert read_record(management, vhost, "t") is None
        finally:
            management.delete("vhosts", vhost)
