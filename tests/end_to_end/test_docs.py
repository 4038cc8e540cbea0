"""The commands of the how-tos that have no test of their own, as they stand."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from broker.connection import Address
from producers.caller import Job
from producers.publisher import Publisher
from tests.docs import blocks, commands
from tests.end_to_end.test_topology_command import answer_on_a_terminal
from tests.provision import QUICK, provision, ready_in, topology_of
from tests.rabbitmq import RabbitMQ
from tests.waiting import until


class Reader:
    """Somebody who types what a page says, in a folder and a virtual host of their own."""

    def __init__(self, page: str, *, env: dict[str, str], folder: Path, address: Address) -> None:
        self.page = f"docs/how-to/{page}"
        self.commands = commands(self.page)
        self.folder = folder
        self.address = address
        self.env = env | {"RABBITRY_TOPOLOGY": str(folder / "topology.yaml")}

    def start(self, command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            env=self.env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, command: str, *, code: int = 0) -> str:
        process = self.start(command)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, f"{command}: {process.returncode}: {err}"
        return out + err


@pytest.fixture
def reader(
    rabbitmq: RabbitMQ, vhost: str, env: dict[str, str], tmp_path: Path, request: Any, monkeypatch
) -> Reader:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    return Reader(request.param, env=env, folder=tmp_path, address=rabbitmq.address(vhost))


@pytest.mark.parametrize("reader", ["delays.md"], indirect=True)
def test_delays(reader: Reader) -> None:
    (text,) = blocks(reader.page, "yaml")
    (program,) = blocks(reader.page, "python")
    topology, _ = topology_of(reader.folder, text)
    provision(topology, reader.address)
    for command in reader.commands:
        reader.run(command)
    with Publisher(topology, reader.address.url) as publisher:
        names = {"publisher": publisher, "Job": Job, "UTC": UTC}
        names |= {"datetime": datetime, "timedelta": timedelta}
        exec(program, names)  # noqa: S102  (what the page shows)
        assert publisher.flush(30)
    assert ready_in(reader.address, "orders") == 0


@pytest.mark.parametrize("reader", ["schedules.md"], indirect=True)
def test_schedules(reader: Reader) -> None:
    (text,) = blocks(reader.page, "yaml")
    topology_of(reader.folder, text)
    *first, last = reader.commands
    for command in first:
        reader.run(command)
    scheduler = reader.start(last)
    try:
        # A heartbeat is due every five seconds.
        until(
            lambda: scheduler.poll() is not None or ready_in(reader.address, "jobs.normal"),
            timeout_s=40,
            what="a heartbeat",
        )
    finally:
        scheduler.send_signal(signal.SIGTERM)
        _, err = scheduler.communicate(timeout=30)
    assert scheduler.returncode == 0, err


@pytest.mark.parametrize("reader", ["publish-many.md"], indirect=True)
def test_publish_many(reader: Reader) -> None:
    topology, _ = topology_of(reader.folder)
    provision(topology, reader.address)
    lines = [json.dumps({"name": "demo.echo", "args": [number]}) for number in range(3)]
    (reader.folder / "jobs.jsonl").write_text("\n".join(lines))
    for command in reader.commands:
        reader.run(command)
    assert ready_in(reader.address, "jobs.normal") == 3


# A replacement waits until nothing moves any more, which takes a quarter of a minute.
@pytest.mark.soak
@pytest.mark.parametrize("reader", ["replace.md"], indirect=True)
def test_replace(reader: Reader) -> None:
    topology, _ = topology_of(reader.folder)
    provision(topology, reader.address)
    changed = dedent(QUICK).replace("jobs.dead: {type: topic}", "jobs.dead: {type: fanout}")
    topology_of(reader.folder, changed)
    plan, apply, again, rollback = reader.commands
    assert "1 to replace" in reader.run(plan, code=3)
    program, *arguments = shlex.split(apply)
    assert program == "rabbitry"
    code, output = answer_on_a_terminal("y", arguments, reader.env)
    assert code == 0, output
    # Nothing was interrupted: there is nothing left to go on with, and nothing to undo.
    reader.run(again)
    assert "jobs.normal" in reader.run(rollback, code=1)
