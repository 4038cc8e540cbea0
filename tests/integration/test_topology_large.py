"""Five thousand objects: how long a plan takes, how much it asks RabbitMQ, what it holds."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.management import Management
from broker.topology import Topology
from broker.topology.apply import apply
from broker.topology.export import Scope, export
from broker.topology.export.definitions import objects_of
from broker.topology.export.emit import to_yaml
from broker.topology.look import look
from broker.topology.ownership import Record, Records
from tests.integration.large import definitions
from tests.rabbitmq import RabbitMQ

OBJECTS = 5000
PLAN_S = 5.0
MEMORY_MB = 200
# One process, as a person runs it; prints its seconds and the most memory it held.
MEASURED = r"""
import re, sys, time
from pathlib import Path
started = time.perf_counter()
from rabbitry.cli import main
sys.argv = ["rabbitry", "topology", "plan", "--topology", sys.argv[1]]
try:
    main()
except SystemExit as exc:
    code = exc.code
seconds = time.perf_counter() - started
# What getrusage tells begins with the memory of the process that this one was forked from.
highest_kib = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]
print(code, seconds, int(highest_kib) / 1024)
"""


class Counting(Management):
    """Counts its requests."""

    requests = 0

    def _request(self, *args: Any, **kwargs: Any) -> Any:
        self.requests += 1
        return super()._request(*args, **kwargs)


@pytest.fixture
def counting(rabbitmq: RabbitMQ, vhost: str) -> Iterator[Counting]:
    with Counting(rabbitmq.address(vhost), timeout_s=300) as management:
        yield management


def file_of(objects: int, vhost: str, path: Path) -> dict[str, Any]:
    """Write a topology file of about so many objects and return the definitions it is from."""
    found: dict[str, Any] = definitions(objects, vhost=vhost)
    made = export(
        objects_of(found, vhost, file="made up"),
        scope=Scope("large", Records(Record("large", vhost))),
        vhost=vhost,
    )
    assert made.complaints == ()
    path.write_text(to_yaml(made.document))
    return found


def test_the_number_of_requests_of_a_plan_does_not_grow(
    counting: Counting, vhost: str, tmp_path: Path
) -> None:
    counts = []
    for objects in (20, 200):
        file_of(objects, vhost, path := tmp_path / f"{objects}.yaml")
        topology = Topology.load(path)
        assert apply(look(topology, counting).plan, counting).complete
        counting.requests = 0
        assert look(topology, counting).plan.same
        counts.append(counting.requests)
    assert counts[0] == counts[1] <= 16


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_five_thousand_objects(
    rabbitmq: RabbitMQ,
    counting: Counting,
    vhost: str,
    env: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "topology.yaml"
    found = file_of(OBJECTS, vhost, path)

    started = time.perf_counter()
    counting.post("definitions", body=found)
    import_s = time.perf_counter() - started
    counting.delete("vhosts", vhost)

    counting.put("vhosts", vhost, body={"default_queue_type": "quorum"})
    topology = Topology.load(path)
    counting.requests = 0
    started = time.perf_counter()
    outcome = apply(look(topology, counting).plan, counting)
    apply_s = time.perf_counter() - started
    assert outcome.complete, json.dumps(outcome.document() | {"done": []})[:2000]
    apply_requests = counting.requests

    counting.requests = 0
    started = time.perf_counter()
    plan = look(topology, counting).plan
    look_s = time.perf_counter() - started
    assert plan.same
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path)],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    code, plan_s, memory_mb = done.stdout.split()
    with capsys.disabled():
        sys.stderr.write(
            f"\n{len(outcome.done)} objects: one import {import_s:.1f} s,"
            f" apply {apply_s:.1f} s ({apply_requests} requests,"
            f" {apply_s / import_s:.2f} times the import),"
            f" plan without changes {look_s:.2f} s ({counting.requests} requests),"
            f" as a command {float(plan_s):.2f} s and {float(memory_mb):.0f} MB\n"
        )
    assert code == "0"
    assert float(plan_s) <= PLAN_S
    assert float(memory_mb) < MEMORY_MB
