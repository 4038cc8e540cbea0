"""Every block of the how-to on ranking jobs, as it stands."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from functools import partial

import pytest

from broker.topology.model import WorkerSpec
from broker.topology.shares import shares_of
from tests.docs import ROOT, blocks, commands
from tests.end_to_end.conftest import Daemon
from tests.integration.conftest import Provisioned
from tests.provision import provision, ready_in, topology_of
from tests.waiting import until

PAGE = ROOT / "docs" / "how-to" / "priorities.md"


@pytest.fixture
def provisioned(rabbitmq, vhost, tmp_path, monkeypatch) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    (program,) = blocks(PAGE, "python")
    (tmp_path / "shop.py").write_text(program)
    (text,) = blocks(PAGE, "yaml")
    topology, path = topology_of(tmp_path, text)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


def test_the_commands_work_as_they_stand(provisioned, start, env, tmp_path) -> None:
    ran: list[str] = []

    def run(command: str) -> str:
        done = subprocess.run(
            ["bash", "-ec", command],
            env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path)},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    address = provisioned.address
    for command in commands(PAGE):
        ran.append(command)
        if command == "rabbitry worker run high low":
            assert ready_in(address, "low") == 2
            bands = start(*command.split(), queue="low")
            until(partial(_tells, bands, {"monday", "today"}), timeout_s=30, what="both jobs")
            assert bands.stop() == 0, bands.log
        elif command == "rabbitry worker run small":
            start(*command.split(), queue="low")
        elif command.startswith("rabbitry worker check"):
            # RabbitMQ's statistics know of a consumer a little later.
            until(partial(_succeeds, run, command), timeout_s=30, what="the worker to be known")
        else:
            run(command)
    assert len(ran) == 9


def _tells(daemon: Daemon, days: set[str]) -> bool:
    return set(re.findall(r"reported (\w+)", daemon.log)) == days


def _succeeds(run: Callable[[str], str], command: str) -> bool:
    try:
        run(command)
    except AssertionError:
        return False
    return True


def test_the_table_of_shares_is_what_comes_of_it() -> None:
    rows = re.findall(
        r"^\| (\d+) \| (?:`\{high: (\d+)\}`)? ?\| (?:`(\d+%)`)? ?\| (.+) \|$",
        PAGE.read_text(),
        re.MULTILINE,
    )
    assert len(rows) == 6
    for concurrency, weight, starvation, expected in rows:
        worker = WorkerSpec(
            queues=["high", "low"],
            concurrency=int(concurrency),
            weights={"high": int(weight)} if weight else {},
            starvation=starvation or None,
        )
        if expected.startswith("refused"):
            with pytest.raises(ValueError, match="cannot be divided"):
                shares_of(worker)
        else:
            assert ", ".join(map(str, shares_of(worker).values())) == expected
