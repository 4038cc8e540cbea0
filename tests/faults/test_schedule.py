"""Whatever happens to RabbitMQ, no tick is lost, and a repeated one has the same id."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.management import Management
from tests.end_to_end.schedulers import FILE, Schedulers
from tests.faults.nodes import Hurt
from tests.provision import provision, topology_of
from tests.waiting import until


@pytest.fixture
def schedulers(hurt: Hurt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Schedulers]:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", hurt.address.management_url)
    address = hurt.address.with_vhost(f"faults-{uuid.uuid4().hex[:8]}")
    topology, path = topology_of(tmp_path, FILE)
    provision(topology, address)
    env = {
        **os.environ,
        "RABBITRY_URL": address.url,
        "RABBITRY_MANAGEMENT_URL": hurt.address.management_url,
    }
    found = Schedulers(topology, path, address, env=env, folder=tmp_path)
    yield found
    found.end()
    with Management(hurt.address) as management:
        management.delete("vhosts", address.vhost_name)


@pytest.mark.parametrize(
    "end", [pytest.param(Hurt.stop, marks=pytest.mark.soak), Hurt.kill], ids=["restarted", "killed"]
)
def test_a_rabbitmq_that_goes_and_comes_back(
    hurt: Hurt, schedulers: Schedulers, end: Callable[[Hurt], None]
) -> None:
    schedulers.start(2)
    schedulers.wait_all()
    schedulers.wait_ticks(1)
    end(hurt)
    hurt.start()
    schedulers.wait_ticks(4)
    assert len(schedulers.standing_by()) == 2
    ledger = schedulers.ledger()
    assert ledger.missing == []
    # A tick that was confirmed when its mark was not.
    assert len(ledger.again) <= 1


def test_an_alarm_delays_ticks_and_loses_none(hurt: Hurt, schedulers: Schedulers) -> None:
    schedulers.start()
    schedulers.wait_ticks(1)
    (only,) = schedulers.processes
    hurt.raise_alarm()
    try:
        until(
            lambda: "blocks publishing" in schedulers.log(only),
            timeout_s=30,
            what="the scheduler to be blocked",
        )
    finally:
        hurt.lift_alarm()
    schedulers.wait_ticks(2)
    ledger = schedulers.ledger()
    assert ledger.missing == []
    assert ledger.again == {}
    only.send_signal(signal.SIGTERM)
    assert only.wait(10) == 0
