"""Every block of the how-to on calls, as it stands."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.docs import ROOT, blocks, commands
from tests.integration.conftest import Provisioned
from tests.provision import provision, topology_of

PAGE = ROOT / "docs" / "how-to" / "calls.md"


@pytest.fixture
def provisioned(rabbitmq: Any, vhost: str, tmp_path: Path, monkeypatch: Any) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    for text in blocks(PAGE, "python"):
        name = text.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(text)
    [whole] = blocks(PAGE, "yaml")
    topology, path = topology_of(tmp_path, whole)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


@pytest.fixture
def worker(start: Any, provisioned: Provisioned) -> Any:
    return start("rabbitry", "worker", "run", "lab", queue="estimates")


def run(
    command: list[str], provisioned: Provisioned, env: dict[str, str], **options: Any
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path)},
        cwd=provisioned.path.parent,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done


def test_what_is_typed_prints_results(provisioned, worker, env) -> None:
    plain, as_json = commands(PAGE)
    done = run(["bash", "-ec", plain], provisioned, env)
    assert (done.stdout, done.stderr) == ("2.5\n", "")
    document = json.loads(run(["bash", "-ec", as_json], provisioned, env).stdout)
    low, high = document["result"]
    assert 1 < low < 2.5 < high < 4
    assert document["outcome"] == "result"


def test_on_a_terminal_a_bar_shows_how_far_it_is(provisioned, worker, env) -> None:
    ours, theirs = pty.openpty()
    command = "rabbitry jobs call estimate.interval series='[1, 2, 3, 4]' rounds=200"
    env = {**env, "TERM": "xterm", "COLUMNS": "100"}
    shown: list[bytes] = []

    def read() -> None:
        # Until nobody holds the other end any more.
        with contextlib.suppress(OSError):
            while data := os.read(ours, 65536):
                shown.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        done = run(["bash", "-ec", command], provisioned, env, stderr=theirs)
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)
    assert b"resampling" in b"".join(shown)
    assert b"%" in b"".join(shown)
    assert "float64" in done.stdout


def test_the_programs_print_what_they_say(provisioned, worker, env) -> None:
    printed = {
        name: run([sys.executable, name], provisioned, env).stdout.splitlines()
        for name in ("calling.py", "following.py", "awaiting.py")
    }
    mean, raised, again = printed["calling.py"]
    assert abs(float(mean) - 3.025) < 1e-9
    assert raised.startswith("the task raised")
    assert again.partition(" at ")[2]
    accepted, *progress, done = printed["following.py"]
    assert accepted.startswith("begun at")
    assert progress[-1].startswith("100% resampling")
    assert done.startswith("done: [")
    means, *pairs, last = printed["awaiting.py"]
    assert json.loads(means) == [number + 0.5 for number in range(10)]
    assert sorted(pairs) == ["0 1.0", "1 2.0"]
    assert last.startswith("[")
