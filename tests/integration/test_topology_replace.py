"""Replacements that were interrupted: gone on with, undone, named; and the lock they stand on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.connection import connect
from broker.errors import AccessRefused, ApplyRefused, ProvisioningFailed
from broker.management import Management
from broker.topology import Topology
from broker.topology.apply import Outcome, apply
from broker.topology.bulk import Failure
from broker.topology.destroy import plan_destroy
from broker.topology.load import load
from broker.topology.look import look
from broker.topology.obsolete import Consent
from broker.topology.ownership import LOCK_NAME
from broker.topology.replace import pending
from broker.topology.replace.steps import QUEUE_STEPS
from broker.topology.replacing import begun_of, roll_back
from tests.waiting import until

FILE = """version: 1
name: t
vhost: {name: unused}
exchanges:
  jobs: {type: topic}
queues:
  q:
    type: classic
    bindings: [{exchange: jobs, routing_key: "q.#"}]
"""
QUORUM = FILE.replace("classic", "quorum")
HEADERS = FILE.replace("topic", "direct")
REPLACE = Consent(replace=True)
QUICK_S = 0.2


class Stopped(Exception):
    """What ends an apply in the middle."""


@pytest.fixture
def management(rabbitmq: Any, vhost: str) -> Iterator[Management]:
    with Management(rabbitmq.address(vhost)) as client:
        yield client


@pytest.fixture
def wanted(tmp_path: Path, management: Management) -> Callable[[str], Topology]:
    """Give the file a content; return it as read."""

    def write(text: str) -> Topology:
        (tmp_path / "topology.yaml").write_text(text)
        return load(tmp_path / "topology.yaml")

    outcome = applied(write(FILE), management)
    assert outcome.complete
    return write


def applied(
    topology: Topology, management: Management, say: Callable[[str], None] = lambda text: None
) -> Outcome:
    plan = look(topology, management, consent=REPLACE).plan
    return apply(plan, management, consent=REPLACE, say=say, settle_s=QUICK_S)


def stop_at(step: int) -> Callable[[str], None]:
    def say(text: str) -> None:
        if f": step {step} of" in text:
            raise Stopped

    return say


def publish(management: Management, bodies: range) -> None:
    connection = connect(management.address)
    try:
        producer = connection.Producer(connection.channel())
        for body in bodies:
            producer.publish(str(body), exchange="jobs", routing_key="q.x", delivery_mode=2)
    finally:
        connection.release()


def taken(management: Management) -> list[int]:
    connection = connect(management.address)
    try:
        channel = connection.channel()
        found = []
        while message := channel.basic_get("q", no_ack=True):
            found.append(int(message.body))
        return found
    finally:
        connection.release()


def left_clean(management: Management) -> bool:
    vhost = management.address.vhost_name
    names = [
        each["name"]
        for kind in ("queues", "exchanges", "policies")
        for each in management.get(kind, vhost)
    ]
    return not pending(management, vhost) and not any("rabbitry.replace" in n for n in names)


def test_apply_goes_on_after_each_step_and_no_message_is_lost_or_there_twice(
    management: Management, vhost: str, wanted: Callable[[str], Topology]
) -> None:
    publish(management, range(20))
    topology, count = wanted(QUORUM), 20
    for step in range(2, len(QUEUE_STEPS) + 1):
        with pytest.raises(Stopped):
            applied(topology, management, stop_at(step))
        (begun,) = pending(management, vhost, "t")
        assert begun.step == QUEUE_STEPS[step - 1]
        publish(management, range(count, count + 5))
        count += 5
    outcome = applied(topology, management)
    assert outcome.complete, outcome
    assert [each.name for each in outcome.resumed] == [("q",)]
    assert management.get("queues", vhost, "q")["type"] == "quorum"
    assert look(topology, management).plan.same
    assert left_clean(management)
    assert sorted(taken(management)) == list(range(count))


def test_it_is_gone_on_with_also_where_nothing_else_differs_any_more(
    management: Management, vhost: str, wanted: Callable[[str], Topology]
) -> None:
    publish(management, range(3))
    topology = wanted(QUORUM)
    with pytest.raises(Stopped):
        applied(topology, management, stop_at(QUEUE_STEPS.index("settle") + 1))
    plan = look(topology, management).plan
    assert (plan.changes, plan.same) == ((), False)
    with pytest.raises(ApplyRefused, match=r"at step 8 of 9 \(settle\); `rabbitry topology apply"):
        apply(plan, management)
    assert applied(topology, management).complete
    assert left_clean(management)
    assert sorted(taken(management)) == [0, 1, 2]


def test_an_interrupted_replacement_is_undone_and_its_messages_are_back(
    management: Management, vhost: str, wanted: Callable[[str], Topology]
) -> None:
    publish(management, range(20))
    topology = wanted(QUORUM)
    with pytest.raises(Stopped):
        applied(topology, management, stop_at(QUEUE_STEPS.index("swap") + 1))
    publish(management, range(20, 25))
    roll_back(begun_of("q", "t", management), management, settle_s=QUICK_S)
    assert management.get("queues", vhost, "q")["type"] == "classic"
    assert left_clean(management)
    assert look(wanted(FILE), management).plan.same
    assert sorted(taken(management)) == list(range(25))


def test_what_is_replaced_already_can_but_be_gone_on_with(
    management: Management, vhost: str, wanted: Callable[[str], Topology]
) -> None:
    topology = wanted(QUORUM)
    with pytest.raises(Stopped):
        applied(topology, management, stop_at(QUEUE_STEPS.index("refill") + 1))
    (begun,) = pending(management, vhost, "t")
    assert "rollback" not in begun.interruption
    with pytest.raises(ProvisioningFailed, match="apply --allow-replace` goes on with it"):
        roll_back([begun], management, settle_s=QUICK_S)
    assert applied(topology, management).complete


def test_plan_drift_and_destroy_name_what_was_interrupted_and_rollback_undoes_it(
    management: Management, vhost: str, wanted: Callable[[str], Topology], rabbitry: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    topology = wanted(HEADERS)
    with pytest.raises(Stopped):
        applied(topology, management, stop_at(3))
    text = (
        "a replacement of exchange 'jobs' was interrupted at step 3 of 5 (swap); `rabbitry topology"
        " apply --allow-replace` goes on with it, `rabbitry topology rollback jobs` undoes it"
    )
    options = ("--topology", tmp_path / "topology.yaml")
    for command in ("plan", "drift"):
        found = rabbitry("topology", command, *options)
        assert (found.returncode, text in found.stdout) == (3, True), found.stdout
        document = json.loads(rabbitry("topology", command, "--json", *options).stdout)
        (half,) = document["interrupted"]
        assert (half["name"], half["step"], half["can_go_back"]) == (["jobs"], "swap", True)
        assert document["same"] is False
    for command in ("apply", "destroy"):
        refused = rabbitry("topology", command, "--yes", *options)
        assert (refused.returncode, text in refused.stderr) == (1, True), refused.stderr
    asked = rabbitry("topology", "apply", "--allow-replace", *options)
    assert (asked.returncode, "add --yes" in asked.stderr) == (2, True)
    other = rabbitry("topology", "rollback", "job", "--yes", *options)
    assert (other.returncode, "did you mean 'jobs'" in other.stderr) == (1, True)
    done = rabbitry("topology", "rollback", "jobs", "--yes", *options)
    assert done.returncode == 0, done.stderr
    assert "exchange 'jobs' is as it was" in done.stderr
    assert left_clean(management)
    wanted(FILE)
    assert rabbitry("topology", "plan", *options).returncode == 0


def test_a_replacement_of_a_deleted_virtual_host_is_forgotten(
    management: Management, vhost: str, wanted: Callable[[str], Topology]
) -> None:
    topology = wanted(QUORUM)
    with pytest.raises(Stopped):
        applied(topology, management, stop_at(4))
    management.delete("vhosts", vhost)
    management.put("vhosts", vhost, body={"default_queue_type": "quorum"})
    assert look(topology, management).plan.interrupted == ()
    assert plan_destroy("t", vhost, management).changes == ()
    assert applied(topology, management).complete
    assert left_clean(management)
    assert look(topology, management).plan.same


def test_a_lock_that_is_lost_stops_a_replacement_before_its_next_step(
    management: Management, vhost: str, wanted: Callable[[str], Topology]
) -> None:
    topology, said = wanted(QUORUM), []

    def lock() -> Any:
        connections = management.get("vhosts", vhost, "connections")
        named = "rabbitry topology apply"
        return [each["name"] for each in connections if each.get("user_provided_name") == named]

    def unlocked() -> bool:
        return management.find("queues", vhost, LOCK_NAME) is None

    def say(text: str) -> None:
        said.append(text)
        if "step 3 of 9" in text:
            # To others it is under way, not interrupted.
            seen = look(topology, management).plan
            assert (seen.interrupted, "another apply is at work" in seen.warnings[-1]) == ((), True)
            (name,) = until(lock, 30, "the lock's connection in the statistics")
            management.delete("connections", name)
            until(unlocked, 30, "the end of the lock")

    outcome = applied(topology, management, say)
    (failure,) = outcome.failed
    assert isinstance(failure, Failure)
    assert re.search(
        r"^the lock on virtual host '.*' was lost \(CONNECTION_FORCED.*\), so another apply may"
        r" be running; run this one again: the replacement of queue 'q' stands at"
        r" step 3 of 9 \(divert\)",
        failure.reason,
    )
    assert "step 3 of 9" in said[-1]
    assert applied(topology, management).complete
    assert left_clean(management)


@pytest.mark.parametrize(
    "refusal",
    [
        # What RabbitMQ 4.3 answers without the plugin, and to a user without the tag.
        ProvisioningFailed("", object="", reason="Validation failed component shovel not found"),
        AccessRefused("Not policymaker user"),
    ],
    ids=["no plugin", "no right"],
)
def test_without_a_shovel_messages_are_moved_over_amqp(
    management: Management,
    wanted: Callable[[str], Topology],
    monkeypatch: pytest.MonkeyPatch,
    refusal: Exception,
) -> None:
    put = Management.put

    def without_shovel(self: Management, *segments: str, body: Any = None) -> None:
        if segments[:2] == ("parameters", "shovel"):
            raise refusal
        put(self, *segments, body=body)

    monkeypatch.setattr(Management, "put", without_shovel)
    publish(management, range(300))
    said: list[str] = []
    assert applied(wanted(QUORUM), management, said.append).complete
    assert said.count("no shovel can be used here: moving messages over AMQP") == 2
    assert any(text.startswith("moved 300 messages over AMQP, 'q'") for text in said)
    assert taken(management) == list(range(300))
