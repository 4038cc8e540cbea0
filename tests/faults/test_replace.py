"""A queue or an exchange is replaced under load, and killed while it is: the ledger closes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.connection import Address
from broker.management import Management
from broker.topology import Topology
from broker.topology.apply import apply
from broker.topology.compile import compile_topology
from broker.topology.observe import observe
from broker.topology.plan import Plan, make_plan
from broker.topology.replace import pending, replace
from broker.topology.replace.steps import QUEUE_STEPS
from tests.conftest import ROOT
from tests.faults.traffic import Traffic
from tests.provision import provision, ready_in, topology_of

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
SINGLE = CLASSIC.replace("max_priority: 5", "single_active_consumer: true")

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
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), when],
        env={**env, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


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
    assert plan.same, plan.changes
    assert not [each for each in plan.unmanaged if each.kind != "policy"]
    assert pending(management, management.address.vhost_name) == []


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [
        pytest.param(CLASSIC, SINGLE, 500, id="an argument"),
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
        pytest.param(3_000, id="3,000 messages"),
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
