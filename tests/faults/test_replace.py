"""A queue or an exchange is replaced under load, and killed while it is: the ledger closes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace as with_
from pathlib import Path
from typing import Any

import amqp
import pytest

from broker.connection import Address, connect
from broker.errors import ProvisioningFailed
from broker.management import Management
from broker.topology import Topology
from broker.topology.apply import apply
from broker.topology.compile import compile_topology
from broker.topology.observe import observe
from broker.topology.plan import Plan, make_plan
from broker.topology.replace import pending, replace, resume, rollback
from broker.topology.replace.moves import BATCH, REDELIVERED
from broker.topology.replace.steps import EXCHANGE_STEPS, QUEUE_STEPS
from producers.publisher import Job, Publisher
from tests.conftest import ROOT
from tests.faults.traffic import Traffic
from tests.provision import provision, ready_in, topology_of
from tests.waiting import until

CLASSIC = """
version: 1
name: replaced
vhost: {name: unused}
exchanges:
  jobs: {type: topic}
  more: {type: headers}
  front: {type: fanout}
  jobs.dead: {type: topic}
queues:
  jobs.normal:
    type: classic
    max_priority: 5
    bindings:
      - {exchange: jobs, routing_key: "normal.#"}
      - {exchange: jobs, routing_key: "#.echo"}
      - {exchange: more, arguments: {x-match: any, kind: a, size: 1}}
      - {exchange: front}
    dead_letter: {exchange: jobs.dead}
jobs:
  demo.echo: {exchange: jobs, routing_key: normal.demo.echo}
"""
QUORUM = CLASSIC.replace("type: classic\n    max_priority: 5", "type: quorum")
SINGLE_QUORUM = QUORUM.replace("quorum", "quorum\n    single_active_consumer: true")
SINGLE = CLASSIC.replace("max_priority: 5", "single_active_consumer: true")

OLD_POLICY = ("policy", "delete")

# Does what a plan says is to be replaced, and is killed at the n-th progress: before a step that
# is done is written down, or after.
PROGRAM = """
import os, signal, sys
from broker.connection import Address
from broker.management import Management
from broker.topology.load import load
from broker.topology.replace import pending, record, replace, resume
from tests.faults.test_replace import plan_of

path, when = sys.argv[1:]
address = Address.parse(os.environ["RABBITRY_URL"],
                        management_url=os.environ["RABBITRY_MANAGEMENT_URL"])
write, written = record.write, []
steps = []

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def say(line):
    print(line, flush=True)

def watched(management, it):
    if steps and it.step != steps[-1] and when == "before":
        die()
    write(management, it)
    if when == "at once":
        die()
    if steps and it.step != steps[-1] and when == "after":
        die()
    steps.append(it.step)

record.write = watched
with Management(address) as management:
    begun = pending(management, address.vhost_name, "replaced")
    for each in begun:
        steps.append(each.step)
        resume(each, management, address, say=say, settle_s=1)
    if not begun:
        for change in plan_of(load(path), management).changes:
            if change.action == "replace":
                replace(change, management, address, owner="replaced", say=say, settle_s=1)
"""


def plan_of(topology: Topology, management: Management) -> Plan:
    vhost = management.address.vhost_name
    return make_plan(compile_topology(topology, vhost=vhost), observe(management, vhost))


@pytest.fixture
def address(rabbitmq: Any, vhost: str, monkeypatch: pytest.MonkeyPatch) -> Address:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    found: Address = rabbitmq.address(vhost)
    return found


@pytest.fixture
def management(address: Address) -> Iterator[Management]:
    with Management(address) as client:
        yield client


def replaced(topology: Topology, management: Management, address: Address) -> list[str]:
    """Replace what the topology wants replaced; return what was said."""
    said: list[str] = []
    # All else that the file wants: the new kind of queue has policies of its own.
    apply(plan_of(topology, management), management)
    changes = [each for each in plan_of(topology, management).changes if each.action == "replace"]
    assert changes
    for change in changes:
        replace(change, management, address, owner="replaced", say=said.append, settle_s=1)
    return said


def killed_after_each_step(path: Path, env: dict[str, str], steps: int) -> None:
    """Run and kill: for each step once before it is written down and once after; then finish."""
    for when in ("before", "after") * (steps - 1):
        assert run(path, env, when).returncode == -signal.SIGKILL
    last = run(path, env, "never")
    assert last.returncode == 0, last.stderr


def run(path: Path, env: dict[str, str], when: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), when],
        env={**env, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # Shown by `pytest -rP`.
    print(done.stdout)  # noqa: T201
    return done


def close(traffic: Traffic, management: Management, topology: Topology) -> None:
    """Check that the ledger closes and that nothing of the replacement is left."""
    ledger = traffic.finish()
    # Shown by `pytest -rP`.
    print(ledger)  # noqa: T201
    assert ledger.consumed == ledger.routed
    assert not ledger.unroutable
    assert ledger.twice_unflagged == []
    assert ready_in(management.address, traffic.queue) == 0
    left_clean(management, topology)


def left_clean(management: Management, topology: Topology) -> None:
    plan = plan_of(topology, management)
    # The policy of the old type stays until an apply finds nothing of that type any more.
    left = [each for each in plan.changes if (each.identity.kind, each.action) != OLD_POLICY]
    assert not left
    assert not [each for each in plan.unmanaged if each.kind != "policy"]
    assert pending(management, management.address.vhost_name) == []


def until_counted(management: Management, what: str) -> None:
    """Wait until RabbitMQ's statistics, which lag, count one such message."""
    vhost = management.address.vhost_name
    until(
        lambda: management.get("queues", vhost, "jobs.normal").get(what) == 1,
        timeout_s=30,
        what=f"{what} to be 1",
    )


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [
        pytest.param(SINGLE_QUORUM, QUORUM, 800, id="an argument"),
        pytest.param(CLASSIC, QUORUM, 20_000, id="20,000 messages", marks=pytest.mark.soak),
    ],
)
@pytest.mark.timeout(600)
def test_a_queue_is_replaced_while_producers_and_consumers_go_on(
    address: Address,
    management: Management,
    tmp_path: Path,
    before: str,
    after: str,
    count: int,
) -> None:
    topology, _ = topology_of(tmp_path, before)
    provision(topology, address)
    wanted, _ = topology_of(tmp_path, after)
    traffic = Traffic(topology, address, "jobs.normal")
    traffic.backlog(count)
    with traffic:
        said = replaced(wanted, management, address)
        assert said[-1] == "queue 'jobs.normal' is replaced"
        close(traffic, management, wanted)
    assert traffic.cancelled


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(3_000, id="3,000 messages", marks=pytest.mark.soak),
        pytest.param(20_000, id="20,000 messages", marks=pytest.mark.soak),
    ],
)
@pytest.mark.timeout(900)
def test_a_replacement_that_is_killed_after_each_step_is_gone_on_with(
    address: Address,
    management: Management,
    tmp_path: Path,
    env: dict[str, str],
    count: int,
) -> None:
    topology, _ = topology_of(tmp_path, CLASSIC)
    provision(topology, address)
    wanted, path = topology_of(tmp_path, QUORUM)
    apply(plan_of(wanted, management), management)
    traffic = Traffic(topology, address, "jobs.normal")
    traffic.backlog(count)
    with traffic:
        killed_after_each_step(path, env, len(QUEUE_STEPS))
        close(traffic, management, wanted)


@pytest.mark.soak
def test_apply_that_is_killed_is_gone_on_with_by_the_next(
    address: Address, management: Management, tmp_path: Path, env: dict[str, str]
) -> None:
    topology, path = topology_of(tmp_path, CLASSIC)
    command = [sys.executable, "-m", "rabbitry", "topology", "apply", "--yes", "--allow-replace"]
    settings: dict[str, Any] = {"cwd": ROOT, "text": True, "stderr": subprocess.PIPE}
    settings["env"] = {**env, "RABBITRY_TOPOLOGY": str(path)}
    subprocess.run(command, **settings, check=True, timeout=60)
    wanted, _ = topology_of(tmp_path, QUORUM)
    traffic = Traffic(topology, address, "jobs.normal")
    traffic.backlog(1_000)
    with traffic:
        for step in (2, 4, 6):
            with subprocess.Popen(command, **settings) as process:
                assert process.stderr is not None
                for line in process.stderr:
                    if f"step {step} of" in line:
                        break
                process.kill()
            assert process.returncode == -signal.SIGKILL
            refused = subprocess.run(command[:-1], **settings, check=False, timeout=60)
            assert "a replacement of queue 'jobs.normal' was interrupted" in refused.stderr
        done = subprocess.run(command, **settings, check=False, timeout=100)
        assert done.returncode == 0, done.stderr
        close(traffic, management, wanted)


@pytest.mark.parametrize("step", QUEUE_STEPS[: QUEUE_STEPS.index("swap") + 1])
def test_a_replacement_that_was_killed_can_be_rolled_back(
    address: Address, management: Management, tmp_path: Path, env: dict[str, str], step: str
) -> None:
    topology, _ = topology_of(tmp_path, CLASSIC)
    provision(topology, address)
    _, path = topology_of(tmp_path, SINGLE)
    with Publisher(topology, address.url) as publisher:
        receipts = [publisher.publish(Job("demo.echo", (n,))) for n in range(300)]
        for receipt in receipts:
            receipt.wait()
        for _ in range(QUEUE_STEPS.index(step)):
            assert run(path, env, "after").returncode == -signal.SIGKILL
        if step == "prepare":
            assert run(path, env, "at once").returncode == -signal.SIGKILL
        for n in range(10):
            publisher.publish(Job("demo.echo", (n,))).wait()
    (begun,) = pending(management, address.vhost_name, "replaced")
    assert begun.step == step
    said: list[str] = []
    rollback(begun, management, address, say=said.append, settle_s=0.5)
    assert said[-1] == "queue 'jobs.normal' is as it was"
    assert ready_in(address, "jobs.normal") == 310
    left_clean(management, topology)


def test_what_is_replaced_already_cannot_be_rolled_back(
    address: Address, management: Management, tmp_path: Path, env: dict[str, str]
) -> None:
    topology, _ = topology_of(tmp_path, CLASSIC)
    provision(topology, address)
    wanted, path = topology_of(tmp_path, SINGLE)
    for _ in range(QUEUE_STEPS.index("refill")):
        done = run(path, env, "after")
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    (begun,) = pending(management, address.vhost_name)
    with pytest.raises(ProvisioningFailed, match="apply --allow-replace` goes on with it"):
        rollback(begun, management, address, say=str)
    resume(begun, management, address, say=str, settle_s=0.5)
    left_clean(management, wanted)


# Statistics that lag are waited for three times.
@pytest.mark.soak
def test_a_queue_that_does_not_drain_gets_its_messages_back(
    address: Address, management: Management, tmp_path: Path
) -> None:
    """A consumer that never answers must not stop everybody else's work for good."""
    topology, _ = topology_of(tmp_path, CLASSIC)
    provision(topology, address)
    wanted, _ = topology_of(tmp_path, SINGLE)
    (change,) = plan_of(wanted, management).changes
    with Publisher(topology, address.url) as publisher:
        for n in range(5):
            publisher.publish(Job("demo.echo", (n,))).wait()
    connection = connect(address)
    try:
        assert connection.default_channel.basic_get("jobs.normal") is not None
        until_counted(management, "messages_unacknowledged")
        with pytest.raises(ProvisioningFailed, match=r"1 in the hands of consumers.* is as it was"):
            replace(
                *(change, management, address),
                **{"owner": "replaced", "say": str, "settle_s": 0.5, "patience_s": 12},
            )
    finally:
        connection.release()
    until(lambda: ready_in(address, "jobs.normal") == 5, timeout_s=10, what="all five")
    left_clean(management, topology)


def test_what_rabbitmq_refuses_is_found_out_before_anything_is_lost(
    address: Address, management: Management, tmp_path: Path
) -> None:
    topology, _ = topology_of(tmp_path, CLASSIC)
    provision(topology, address)
    (change,) = plan_of(topology_of(tmp_path, SINGLE)[0], management).changes
    assert change.after is not None
    wrong = {**change.after.attributes, "arguments": {"x-max-priority": 5}, "type": "quorum"}
    with pytest.raises(ProvisioningFailed, match=r"x-max-priority.* is as it was"):
        replace(
            with_(change, after=with_(change.after, attributes=wrong)),
            *(management, address),
            **{"owner": "replaced", "say": str, "settle_s": 0.5},
        )
    left_clean(management, topology)


def test_a_message_keeps_what_it_carries_and_tells_when_it_may_be_there_twice(
    address: Address, management: Management, tmp_path: Path
) -> None:
    topology, _ = topology_of(tmp_path, CLASSIC)
    provision(topology, address)
    wanted, _ = topology_of(tmp_path, SINGLE)
    headers = {
        "float": 1.5,
        "big": 2**40,
        "none": None,
        "bytes": b"\xff",
        "nested": {"list": [1, True, "a"]},
        "CC": ["normal.copy"],
    }
    properties = {
        "application_headers": headers,
        "content_type": "text/plain",
        "content_encoding": "utf-16",
        "delivery_mode": 2,
        "priority": 3,
        "correlation_id": "c",
        "reply_to": "r",
        "expiration": "3600000",
        "message_id": "m",
        "timestamp": 1_700_000_000,
        "type": "t",
        "app_id": "a",
    }
    body = "ž".encode("utf-16")
    connection = connect(address)
    try:
        channel = connection.default_channel
        channel.auto_decode = False
        channel.basic_publish(amqp.Message(body, **properties), "jobs", "normal.any")
        channel.basic_publish(amqp.Message(b"seen before", priority=1), "jobs", "normal.seen")
        until(lambda: ready_in(address, "jobs.normal") == 2, timeout_s=10, what="both")
        kept = channel.basic_get("jobs.normal")
        seen = channel.basic_get("jobs.normal")
        channel.basic_reject(seen.delivery_tag, requeue=True)
        channel.basic_ack(kept.delivery_tag)
        channel.basic_publish(amqp.Message(body, **properties), "jobs", "normal.any")
        replaced(wanted, management, address)
        first, second = (channel.basic_get("jobs.normal", no_ack=True) for _ in range(2))
        by_key = {each.delivery_info["routing_key"]: each for each in (first, second)}
        again = by_key["normal.any"]
        assert again.body == body
        assert again.properties == kept.properties == properties
        seen = by_key["normal.seen"]
        assert seen.properties["application_headers"] == {REDELIVERED: True}
        assert seen.properties["priority"] == 1
        assert channel.basic_get("jobs.normal", no_ack=True) is None
    finally:
        connection.release()


def test_a_mover_that_dies_between_confirm_and_ack_flags_what_is_there_twice(
    address: Address, management: Management, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topology, _ = topology_of(tmp_path, CLASSIC)
    provision(topology, address)
    wanted, _ = topology_of(tmp_path, QUORUM)
    with Publisher(topology, address.url) as publisher:
        for n in range(150):
            receipt = publisher.publish(Job("demo.echo", id=str(n)))
        receipt.wait()

    class Died(Exception):
        """Stands for the end of the process: its connection is gone."""

    def die(*_: Any, **__: Any) -> None:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(amqp.Channel, "basic_ack", die)
        with pytest.raises(Died):
            replaced(wanted, management, address)
    (begun,) = pending(management, address.vhost_name, "replaced")
    resume(begun, management, address, say=str, settle_s=1)
    connection = connect(address)
    try:
        got: list[tuple[str, bool]] = []
        while message := connection.default_channel.basic_get("jobs.normal", no_ack=True):
            headers = message.properties["application_headers"]
            got.append((message.properties["message_id"], REDELIVERED in headers))
    finally:
        connection.release()
    assert {id for id, _ in got} == {str(n) for n in range(150)}
    # One batch was on its way.
    assert len(got) == 150 + BATCH
    unflagged = [id for id, flagged in got if not flagged]
    assert len(unflagged) == len(set(unflagged)) == 150


def test_a_policymaker_with_narrow_rights_can_replace(
    address: Address, management: Management, tmp_path: Path, vhost: str
) -> None:
    topology, _ = topology_of(tmp_path, CLASSIC)
    provision(topology, address)
    wanted, _ = topology_of(tmp_path, SINGLE)
    apply(plan_of(wanted, management), management)
    user = f"u-{vhost}"
    names = r"jobs|jobs\..*|more|front|rabbitry\..*"
    management.put("users", user, body={"password": "pw", "tags": "policymaker"})
    try:
        rights = {"configure": f"^({names})$", "write": f"^({names})$", "read": f"^({names})$"}
        management.put("permissions", vhost, user, body=rights)
        theirs = with_(address, user=user, password="pw")
        with Publisher(topology, address.url) as publisher:
            for n in range(300):
                receipt = publisher.publish(Job("demo.echo", (n,)))
            receipt.wait()
        with Management(theirs) as client:
            (change,) = plan_of(wanted, client).changes
            replace(change, client, theirs, owner="replaced", say=str, settle_s=0.5)
    finally:
        management.delete("users", user)
    assert ready_in(address, "jobs.normal") == 300
    left_clean(management, wanted)


def test_order_within_a_priority_is_kept(
    address: Address, management: Management, tmp_path: Path
) -> None:
    topology, _ = topology_of(tmp_path, CLASSIC)
    provision(topology, address)
    with Publisher(topology, address.url) as publisher:
        for n in range(500):
            receipt = publisher.publish(Job("demo.echo", id=f"{n:03}", priority=n % 3))
        receipt.wait()
    replaced(topology_of(tmp_path, QUORUM)[0], management, address)
    connection = connect(address)
    try:
        got = []
        while message := connection.default_channel.basic_get("jobs.normal", no_ack=True):
            got.append((message.properties["priority"], message.properties["message_id"]))
    finally:
        connection.release()
    assert len(got) == 500
    assert got == sorted(got, key=lambda each: (-each[0], each[1]))


@pytest.mark.soak
def test_what_is_set_aside_for_a_retry_is_waited_for(
    address: Address, management: Management, tmp_path: Path
) -> None:
    """Such messages are invisible to a passive declare, and a deletion would destroy them."""
    text = QUORUM.replace("dead_letter:", "retry: {delay: 14s, limit: 5}\n    dead_letter:")
    topology, _ = topology_of(tmp_path, text)
    provision(topology, address)
    with Publisher(topology, address.url) as publisher:
        publisher.publish(Job("demo.echo", (), id="again")).wait()
    connection = connect(address)
    try:
        message = connection.default_channel.basic_get("jobs.normal")
        connection.default_channel.basic_reject(message.delivery_tag, requeue=True)
        until_counted(management, "messages_delayed")
        wanted, _ = topology_of(
            tmp_path, text.replace("type: quorum", "type: quorum\n    single_active_consumer: true")
        )
        (change,) = plan_of(wanted, management).changes
        replace(change, management, address, owner="replaced", say=str, settle_s=1)
        assert ready_in(address, "jobs.normal") == 1
    finally:
        connection.release()
    left_clean(management, wanted)


# -- exchanges ------------------------------------------------------------------------

BEHIND = """
version: 1
name: replaced
vhost: {name: unused}
exchanges:
  front: {type: fanout}
  jobs:
    type: topic
    bindings: [{exchange: front, routing_key: a}, {exchange: front, routing_key: b}]
  onward: {type: fanout, bindings: [{exchange: jobs, routing_key: normal.demo.echo}]}
queues:
  jobs.normal:
    bindings: [{exchange: jobs, routing_key: normal.demo.echo}, {exchange: onward}]
jobs:
  demo.echo: {exchange: front, routing_key: normal.demo.echo}
"""
INNER = BEHIND.replace("    type: topic", "    type: direct\n    internal: true")


def test_an_exchange_keeps_its_bindings_both_ways_and_what_others_hand_on(
    address: Address, management: Management, tmp_path: Path, env: dict[str, str]
) -> None:
    topology, _ = topology_of(tmp_path, BEHIND)
    provision(topology, address)
    wanted, path = topology_of(tmp_path, INNER)
    with Traffic(topology, address, "jobs.normal") as traffic:
        killed_after_each_step(path, env, len(EXCHANGE_STEPS))
        close(traffic, management, wanted)


def test_publishers_to_an_exchange_that_is_replaced_know_what_did_not_arrive(
    address: Address, management: Management, tmp_path: Path
) -> None:
    topology, _ = topology_of(tmp_path, CLASSIC)
    provision(topology, address)
    text = CLASSIC.replace("jobs: {type: topic}", "jobs: {type: topic, arguments: {own: 1}}", 1)
    wanted, _ = topology_of(tmp_path, text)
    with Traffic(topology, address, "jobs.normal") as traffic:
        replaced(wanted, management, address)
        ledger = traffic.finish()
    assert ledger.consumed == ledger.routed
    assert ledger.twice_unflagged == []
    left_clean(management, wanted)
