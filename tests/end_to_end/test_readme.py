"""The README's tour, run as it stands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from broker import local
from broker.local.state import Home

ROOT = Path(__file__).resolve().parents[2]


def tour() -> str:
    section = (ROOT / "README.md").read_text().partition("## A tour")[2]
    match = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert match is not None
    return match[1]


@pytest.fixture
def home(tmp_path: Path, rabbitmq: object) -> Home:
    # `rabbitmq` is asked for only so that a machine without any skips this too.
    home = Home(path=tmp_path / "home", roots=Home.default().roots)
    yield home
    local.down(home, purge=True)


@pytest.mark.timeout(240)
def test_the_tour_works_as_it_stands(tmp_path: Path, home: Home) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    shutil.copy(ROOT / "topology.yaml", checkout)
    shutil.copytree(ROOT / "examples" / "data", checkout / "examples" / "data")
    env = {name: value for name, value in os.environ.items() if not name.startswith("RABBITRY_")}
    env |= {
        "RABBITRY_HOME": str(home.path),
        "RABBITRY_ROOTS": str(home.roots),
        "PATH": f"{Path(sys.executable).parent}:{env['PATH']}",
    }
    script = tmp_path / "tour.sh"
    script.write_text(tour())
    done = subprocess.run(
        # -m: job control, so that `kill %1` means the daemons.
        ["bash", "-em", str(script)],
        cwd=checkout,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert "42" in lines
    assert any(line.startswith("Routed(") for line in lines)
    assert sum(line.startswith("routed ") for line in lines) == 2
    spectrum = json.loads((checkout / "spectrum.json").read_text())
    assert 10 < spectrum["result"]["strongest_period"] < 11.5
    assert "DemoFailure: on purpose" in (checkout / "workers.log").read_text()
    assert local.status(home) is None
