"""The how-to on running workers as it stands: its commands, its file, its line of the log."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from broker.topology import Topology
from producers.publisher import Publisher
from tests.docs import ROOT, blocks, commands
from tests.provision import ready_in, topology_of

PAGE = Path("docs/how-to/workers.md")


def test_the_files_key_is_read(tmp_path) -> None:
    (text,) = blocks(PAGE, "yaml")
    _, path = topology_of(tmp_path)
    path.write_text(path.read_text().partition("workers:")[0] + text)
    assert Topology.load(path).workers["normal"].grace.total_seconds() == 25


def test_the_commands_drain_the_queues_and_the_log_is_as_shown(provisioned, env, tmp_path) -> None:
    (shown,) = blocks(PAGE, "json")
    for command in commands(PAGE):
        with Publisher(provisioned.topology, provisioned.url) as publisher:
            publisher.publish("demo.add", 1, 2, id="counted").wait()
        subprocess.run(
            ["bash", "-ec", command],
            env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path)},
            cwd=tmp_path,
            timeout=60,
            check=True,
        )
        assert ready_in(provisioned.address, "jobs.normal") == 0
    lines = map(json.loads, (tmp_path / "worker.jsonl").read_text().splitlines())
    (ended,) = [line for line in lines if line.get("id") == "counted"]
    assert list(ended) == list(json.loads(shown))
    assert ended["outcome"] == "done"


def test_the_unit_is_where_the_page_says() -> None:
    assert "deploy/rabbitmq/rabbitry-worker@.service" in (ROOT / PAGE).read_text()
    assert (ROOT / "deploy" / "rabbitmq" / "rabbitry-worker@.service").exists()
