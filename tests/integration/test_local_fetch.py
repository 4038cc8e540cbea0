"""Fetching RabbitMQ's root folder, with a debootstrap that does what a test needs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.local.debian import root_of
from broker.local.process import FETCH_MARKER, marked
from broker.local.state import Home
from tests.waiting import until

Fetch = Callable[[str], "subprocess.Popen[str]"]

# The fifth word is the folder to fill.
WHOLE = 'mkdir -p "$5/etc" "$5/usr"; echo I: Base system installed successfully.'
HANGING = 'mkdir -p "$5/usr"; echo I: Retrieving rabbitmq-server; exec sleep 1000'
FAILING = 'mkdir -p "$5/usr"; echo E: Failed getting release file; exit 1'


@pytest.fixture
def home(tmp_path: Path) -> Home:
    if sys.platform != "linux" or os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        pytest.skip("Debian's packages are for root on Debian")
    return Home(path=tmp_path / "home", roots=tmp_path / "roots")


@pytest.fixture
def fetch(home: Home, tmp_path: Path) -> Fetch:
    """Start `rabbitry broker fetch` with a debootstrap of these shell commands."""

    def start(script: str) -> subprocess.Popen[str]:
        fake = tmp_path / "bin" / "debootstrap"
        fake.parent.mkdir(exist_ok=True)
        fake.write_text(f"#!/bin/sh\necho called >> {tmp_path}/calls\n{script}\n")
        fake.chmod(0o755)
        env = {
            **os.environ,
            "PATH": f"{fake.parent}:{os.environ['PATH']}",
            "RABBITRY_HOME": str(home.path),
            "RABBITRY_ROOTS": str(home.roots),
            "RABBITRY_DEBIAN_MIRROR": "http://mirror.invalid/debian",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "rabbitry", "broker", "fetch"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def fetched(home: Home) -> list[str]:
    return sorted(path.name for path in home.roots.iterdir() if path.is_dir())


def test_a_killed_fetch_counts_for_nothing_and_is_cleared_away_by_the_next(
    home: Home, fetch: Fetch
) -> None:
    killed = fetch(HANGING)
    until(lambda: home.roots.exists() and fetched(home), timeout_s=30, what="the fetch to begin")
    killed.kill()
    killed.communicate()
    partial = str(root_of(home).with_suffix(".partial"))
    left = marked(FETCH_MARKER, partial)
    assert left
    assert not root_of(home).exists()

    out, err = fetch(WHOLE).communicate(timeout=60)
    assert out.strip() == str(root_of(home)), err
    assert fetched(home) == [root_of(home).name]
    assert "localhost" in (root_of(home) / "etc" / "hosts").read_text()
    assert marked(FETCH_MARKER, partial) == []


def test_a_failed_fetch_is_one_sentence_and_leaves_nothing(home: Home, fetch: Fetch) -> None:
    failed = fetch(FAILING)
    out, err = failed.communicate(timeout=60)
    assert failed.returncode == 1
    assert out == ""
    assert "debootstrap failed: E: Failed getting release file" in err
    assert "Traceback" not in err
    assert fetched(home) == []


def test_two_fetches_at_once_fetch_once(home: Home, fetch: Fetch, tmp_path: Path) -> None:
    both = [fetch(WHOLE), fetch(WHOLE)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [out.strip() for out, _ in outputs] == [str(root_of(home))] * 2, outputs
    assert (tmp_path / "calls").read_text() == "called\n"
    # What is there is not fetched again.
    assert fetch(FAILING).communicate(timeout=60)[0].strip() == str(root_of(home))
