"""A worker without RabbitMQ lives and is not ready; with it again, it is."""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.management import Management
from broker.topology import Topology
from producers.publisher import Publisher
from tests.end_to_end.conftest import Daemon
from tests.faults.nodes import Hurt
from tests.probes import ANYWHERE, Probe
from tests.provision import provision, topology_of
from tests.waiting import until

Start = Callable[[], Daemon]


@pytest.fixture
def start(hurt: Hurt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts the worker `normal` of the small topology, on the RabbitMQ that may be hurt."""
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", hurt.address.management_url)
    address = hurt.address.with_vhost(f"faults-{uuid.uuid4().hex[:8]}")
    topology, path = topology_of(tmp_path)
    provision(topology, address)
    monkeypatch.setenv("RABBITRY_URL", address.url)
    monkeypatch.setenv("RABBITRY_TOPOLOGY", str(path))
    daemons: list[Daemon] = []

    def run() -> Daemon:
        command = [sys.executable, "-m", "rabbitry", "worker", "run", "normal"]
        daemons.append(
            Daemon(
                [*command, "--health", ANYWHERE],
                env=dict(os.environ),
                log=tmp_path / f"worker-{len(daemons)}.log",
                cwd=tmp_path,
            )
        )
        return daemons[-1]

    yield run
    for daemon in daemons:
        daemon.end()
    hurt.start()
    with Management(hurt.address) as management:
        management.delete("vhosts", address.vhost_name)


def probe_of(daemon: Daemon) -> Probe:
    return Probe.of_log(lambda: daemon.log)


def test_rabbitmq_goes_and_comes_back(hurt: Hurt, start: Start) -> None:
    probe = probe_of(start())
    probe.until_ready()
    hurt.stop()
    until(lambda: probe.code("/readyz") == 503, timeout_s=30, what="the worker to notice")
    # The attempts to connect are signs of life: the reason is that of the last one.
    until(
        lambda: "refused" in json.loads(probe.get("/readyz")[1])["queues"]["jobs.normal"],
        timeout_s=30,
        what="an attempt that is refused",
    )
    assert probe.code("/livez") == 200
    assert probe.worker("consuming") == {}
    assert probe.worker("reconnects_total") == {}
    hurt.start()
    probe.until_ready()
    assert probe.worker("consuming", "queue") == {("jobs.normal",): 1}
    assert probe.worker("reconnects_total")[()] >= 1
    with Publisher(
        Topology.load(os.environ["RABBITRY_TOPOLOGY"]), os.environ["RABBITRY_URL"]
    ) as publisher:
        publisher.publish("demo.echo", 1).wait()
    until(
        lambda: probe.worker("jobs_total", "outcome") == {("done",): 1},
        timeout_s=30,
        what="a job after that",
    )


def test_a_worker_that_starts_without_rabbitmq_lives_and_becomes_ready(
    hurt: Hurt, start: Start
) -> None:
    hurt.stop()
    probe = probe_of(start())
    assert (probe.code("/livez"), probe.code("/readyz")) == (200, 503)
    hurt.start()
    probe.until_ready()
