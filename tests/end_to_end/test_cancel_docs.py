"""The how-to on cancelling as it stands: its commands, and its task in a worker."""

from __future__ import annotations

import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

from producers.publisher import Publisher
from tests.docs import blocks, commands
from tests.integration.conftest import Provisioned
from tests.letters import inside
from tests.provision import QUICK, provision, topology_of
from tests.waiting import until

PAGE = Path("docs/how-to/cancel.md")

PRINTS = """
import time

def print_page(page):
    open("printed", "a").write(".")
    time.sleep(0.01)
"""


@pytest.fixture
def provisioned(rabbitmq, vhost, tmp_path, monkeypatch) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    task = next(text for text in blocks(PAGE, "python") if "def make" in text)
    (tmp_path / "reports.py").write_text(task + PRINTS)
    report = (
        '  report.make: {task: "reports:make", exchange: jobs, routing_key: normal.report.make}\n'
    )
    text = dedent(QUICK).replace("\njobs:\n", f"\njobs:\n{report}")
    topology, path = topology_of(tmp_path, text)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


def test_the_commands_cancel_what_waits(provisioned, env, tmp_path) -> None:
    shown = ""
    for command in commands(PAGE):
        done = subprocess.run(
            ["bash", "-ec", command],
            env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path)},
            cwd=tmp_path,
            timeout=60,
            check=True,
            capture_output=True,
            text=True,
        )
        shown += done.stdout
    assert "cancelled report-2026-10\n" in shown
    # In the list of dead letters.
    assert "was not begun: it was cancelled by" in shown


def test_the_task_stops_between_two_pages(provisioned, worker, env, tmp_path) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("report.make", list(range(100_000)), id="long").wait()
    until((tmp_path / "printed").exists, 30, "the first page")
    subprocess.run(
        ["rabbitry", "jobs", "cancel", "long"],
        env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path)},
        check=True,
        timeout=60,
    )
    (letter,) = until(lambda: inside(provisioned.address, "jobs.dead"), 30, "the dead letter")
    assert "of 100000 pages" in letter.headers["rabbitry-case-message"]
