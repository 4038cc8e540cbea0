"""Schedulers as real processes: one leads, and whatever happens to it, no tick is lost."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.connection import connect
from broker.management import Management
from broker.topology.token import Token
from tests.conftest import Run
from tests.end_to_end.conftest import Daemon, Start
from tests.end_to_end.schedulers import FILE, Schedulers, paused
from tests.integration.conftest import Provisioned
from tests.provision import provision, ready_in, topology_of
from tests.rabbitmq import RabbitMQ
from tests.waiting import until

# How long the kills go on, and how long a leader lives, in the soak.
SOAK_S, LIFE_S = 180.0, 20.0


@pytest.fixture
def schedulers(
    rabbitmq: RabbitMQ,
    vhost: str,
    env: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Schedulers]:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    topology, path = topology_of(tmp_path, FILE)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    found = Schedulers(topology, path, address, env=env, folder=tmp_path)
    yield found
    found.end()


def test_a_leader_that_is_killed_loses_no_tick(schedulers: Schedulers) -> None:
    schedulers.start(3)
    schedulers.wait_all()
    for _ in range(2):
        schedulers.wait_ticks(2)
        leader = schedulers.leader()
        leader.kill()
        leader.wait()
    schedulers.wait_ticks(2)
    (last,) = schedulers.standing_by()
    started = time.monotonic()
    last.send_signal(signal.SIGTERM)
    assert last.wait(10) == 0
    assert time.monotonic() - started < 1
    ledger = schedulers.ledger()
    assert len(set(ledger.due)) >= 6
    assert ledger.missing == []
    # Each kill may hit between a tick and its mark: then it comes again, under the same id.
    assert len(ledger.again) <= 2


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_leaders_that_are_killed_for_minutes_lose_no_tick(schedulers: Schedulers) -> None:
    schedulers.start(3)
    schedulers.wait_all()
    until_s = time.monotonic() + SOAK_S
    kills = 0
    while time.monotonic() < until_s:
        schedulers.wait_ticks(int(LIFE_S), timeout_s=2 * LIFE_S)
        leader = schedulers.leader()
        leader.kill()
        leader.wait()
        kills += 1
        schedulers.start()
    schedulers.wait_ticks(2)
    ledger = schedulers.ledger()
    print(f"{kills} kills, {len(ledger.due)} ticks, published again: {ledger.again}")  # noqa: T201
    assert kills >= 8
    assert max(ledger.due) - min(ledger.due) >= SOAK_S
    assert ledger.missing == []
    assert len(ledger.again) <= kills


@pytest.mark.soak
def test_a_leader_that_sleeps_publishes_nothing_when_it_wakes(schedulers: Schedulers) -> None:
    schedulers.start(2)
    schedulers.wait_all()
    schedulers.wait_ticks(1)
    leader = schedulers.leader()
    with paused(leader):
        close_connection_of(schedulers, leader.pid)
        until(lambda: schedulers.leader() is not leader, timeout_s=30, what="the other to lead")
        schedulers.wait_ticks(2)
    until(lambda: "beginning again" in schedulers.log(leader), timeout_s=30, what="it to notice")
    schedulers.wait_ticks(2)
    ledger = schedulers.ledger()
    assert ledger.missing == []
    # What was under way when it fell asleep may be there twice; nothing that fell due later is.
    assert len(ledger.again) <= 1
    assert all(due == min(ledger.again) for due in ledger.again)


def close_connection_of(schedulers: Schedulers, pid: int) -> None:
    """Close the connection of the leader's consumer, by management."""
    address = schedulers.address
    with Management(address) as management:

        def connection() -> str | None:
            (consumer,) = (
                each
                for each in management.get("consumers", address.vhost_name)
                if each["consumer_tag"].endswith(f".{pid}")
            )
            # An older RabbitMQ leaves these empty until it has its statistics.
            return (consumer["channel_details"] or {}).get("connection_name")

        name = until(connection, timeout_s=30, what="the consumer's connection to be told")
        until(
            # The tracking table knows a connection at once; the list of all lags by seconds.
            lambda: name in names(management.get("connections", "username", address.user)),
            timeout_s=30,
            what="the connection to be listed",
        )
        management.delete("connections", name)


def names(found: list[dict[str, Any]]) -> list[str]:
    return [each["name"] for each in found]


def test_a_connection_that_is_cut_loses_no_tick(schedulers: Schedulers) -> None:
    schedulers.start()
    schedulers.wait_ticks(1)
    close_connection_of(schedulers, schedulers.leader().pid)
    schedulers.wait_ticks(3)
    ledger = schedulers.ledger()
    assert ledger.missing == []
    assert len(ledger.again) <= 1


def test_list_says_what_is_due_what_was_done_and_who_leads(
    schedulers: Schedulers, rabbitry: Run, tmp_path: Path
) -> None:
    path = tmp_path / "topology.yaml"
    before = rabbitry("schedule", "list", "--topology", path)
    assert before.returncode == 0, before.stderr
    assert "Nobody leads" in before.stderr
    schedulers.start(2)
    schedulers.wait_all()
    schedulers.wait_ticks(1)
    leader = schedulers.leader()
    found = json.loads(rabbitry("schedule", "list", "--json", "--topology", path).stdout)
    assert found["leader"].endswith(f".{leader.pid}")
    assert found["schedulers"] == 2
    assert found["outcome"] == "routed"
    assert found["recurs"] == "every 1s"
    assert found["last"] < found["next"]
    shown = rabbitry("schedule", "list", "--topology", path)
    assert "demo.heartbeat" in shown.stdout
    assert f".{leader.pid} leads" in shown.stderr


def test_a_scheduler_without_its_queue_says_so(
    schedulers: Schedulers, rabbitry: Run, tmp_path: Path
) -> None:
    with Management(schedulers.address) as management:
        management.delete("queues", schedulers.address.vhost_name, Token("ticking").queue)
    found = rabbitry("schedule", "run", "--topology", tmp_path / "topology.yaml")
    assert found.returncode == 1
    assert "lacks the queue 'ticking.schedule'" in found.stderr
    assert "Traceback" not in found.stderr


def test_celerys_own_beat_publishes_to_our_queues(
    start: Start, provisioned: Provisioned, tmp_path: Path
) -> None:
    (tmp_path / "beating.py").write_text(
        "from consumers.app import app\n"
        "app.conf.beat_schedule = {\n"
        "    'second': {'task': 'demo.echo', 'schedule': 1.0, 'args': ('tick',)},\n"
        "}\n"
    )
    command = "-A", "beating", "beat", "--schedule", str(tmp_path / "beat"), "--pidfile="
    beat: Daemon = start(sys.executable, "-m", "celery", *command, queue=None)
    until(lambda: ready_in(provisioned.address, "jobs.normal") >= 2, timeout_s=30, what="two ticks")
    assert beat.stop() == 0, beat.log
    connection = connect(provisioned.address)
    try:
        message = connection.default_channel.basic_get("jobs.normal", no_ack=True)
    finally:
        connection.release()
    assert message.properties["application_headers"]["task"] == "demo.echo"
    assert message.properties["priority"] == 4
