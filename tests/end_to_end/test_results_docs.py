"""Every block of the how-to on keeping results, as it stands."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.docs import ROOT, blocks, commands
from tests.integration.conftest import Provisioned
from tests.provision import provision, topology_of

PAGE = ROOT / "docs" / "how-to" / "results.md"


@pytest.fixture
def provisioned(rabbitmq, redis, vhost, tmp_path, monkeypatch) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    monkeypatch.setenv("REPORTS_REDIS", redis.url)
    for text in blocks(PAGE, "python"):
        name = text.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(text)
    (text,) = blocks(PAGE, "yaml")
    topology, path = topology_of(tmp_path, text)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


def test_the_commands_and_programs_print_what_the_jobs_return(
    provisioned, start, env, tmp_path
) -> None:
    daemon = start("rabbitry", "worker", "run", "reports", queue="reports")
    printed = []
    for command in [*commands(PAGE), f"{sys.executable} read.py", f"{sys.executable} canvas.py"]:
        done = subprocess.run(
            ["bash", "-ec", command],
            env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path)},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        printed.append(done.stdout.strip())
    published, waited, as_json, read, canvas = printed
    assert "july" in published
    assert waited == "[3.5 3.5 3.5]  (float64, (3,))"
    assert json.loads(as_json) == {"id": "july", "outcome": "result", "result": [3.5] * 3}
    assert read == "[4. 4. 4.]"
    assert canvas == "99.0"
    assert daemon.stop() == 0
