"""Every block of the how-to on batches, as it stands."""

from __future__ import annotations

import subprocess
import sys

import pytest

from producers.caller import Caller
from tests.docs import ROOT, blocks, commands
from tests.integration.conftest import Provisioned
from tests.letters import ids
from tests.provision import provision, ready_in, topology_of
from tests.waiting import until

PAGE = ROOT / "docs" / "how-to" / "batches.md"


@pytest.fixture
def provisioned(rabbitmq, vhost, tmp_path, monkeypatch) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    (program,) = blocks(PAGE, "python")
    (tmp_path / "measuring.py").write_text(program)
    (text,) = blocks(PAGE, "yaml")
    topology, path = topology_of(tmp_path, text)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


def test_the_page_works_as_it_stands(provisioned, start, env, tmp_path) -> None:
    worker = start("rabbitry", "worker", "run", "measuring", queue="readings")
    printed = []
    for command in commands(PAGE):
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
        printed.append(done.stdout.strip())
    assert printed[:2] == ["3.0", "cellar 7.5"]
    assert len(printed) == 4
    until(lambda: ids(provisioned.address, "dead") == ["reading-2"], 30, "the one that is given up")
    with Caller(provisioned.topology, provisioned.url) as caller:
        calls = [
            caller.submit("readings.store", sensor="well", value=n, timeout_s=30) for n in range(50)
        ]
        assert [call.result() for call in calls] == [f"well {n}.0" for n in range(50)]
    # The one that is tried again comes back after the queue's delay.
    until(lambda: "readings.store[reading-1] succeeded" in worker.log, 30, "the attic")
    assert worker.stop() == 0
    assert ready_in(provisioned.address, "readings") == 0


def test_the_functions_stay_callable_as_they_are(provisioned, tmp_path) -> None:
    program = "import numpy, measuring; print(measuring.mean(numpy.eye(2)).tolist())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[0.5, 0.5]", done.stderr
