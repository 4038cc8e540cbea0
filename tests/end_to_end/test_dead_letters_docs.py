"""Every command of the how-tos on dead letters and queues runs as it stands."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from producers.publisher import Publisher
from tests.letters import bury, ids, letter

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to"


def commands(page: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (HOW_TO / page).read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("page", ["dead-letters.md", "queues.md"])
def test_the_commands_work_as_they_stand(provisioned, env, tmp_path, page) -> None:
    now_ms = round(time.time() * 1000)
    failed = {"job": "demo.fail", "error": "consumers.jobs.demo.DemoFailure"}
    bury(
        provisioned.address,
        [
            letter(provisioned.topology, "order-1017", **failed, last_ms=now_ms),
            letter(provisioned.topology, "new", **failed, last_ms=now_ms),
            letter(provisioned.topology, "old", **failed),
            letter(provisioned.topology, "other"),
        ],
    )
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("demo.add", 1, 2, id="waiting").wait()
    found = commands(page)
    assert len(found) >= 6
    for command in found:
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
        if command.startswith("rabbitry dead-letters show"):
            assert "DemoFailure" in done.stdout
    replayed = page == "dead-letters.md"
    assert ids(provisioned.address, "jobs.dead") == (
        ["other"] if replayed else ["order-1017", "new", "old", "other"]
    )
    assert ids(provisioned.address, "jobs.normal") == (
        ["waiting", "order-1017", "new"] if replayed else ["waiting"]
    )
