"""`make demo`, with fewer jobs: what it prints and writes, and that it leaves nothing running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEADLINE_S = 100.0
MARK = "RABBITRY_DEMO_TEST"


class Demo:
    """Runs of the demo in one virtual host; knows its processes by a mark in their environment."""

    def __init__(self, environment: dict[str, str], out: Path) -> None:
        self.out = out
        value = str(uuid.uuid4())
        self.mark = f"{MARK}={value}"
        self.environment = {**environment, MARK: value, "PYTHONUNBUFFERED": "1"}

    def start(self, *, jobs: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "examples/demo.py", "--jobs", str(jobs), "--out", str(self.out)],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *, jobs: int) -> tuple[int, str, str]:
        process = self.start(jobs=jobs)
        out, err = process.communicate(timeout=DEADLINE_S)
        return process.returncode, out, err

    def processes(self) -> dict[int, str]:
        """Return what runs with our mark: process id and command line."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(folder.name)] = command.strip()
            except OSError:
                continue  # it has ended, or is not ours to look at
        return found

    def report(self) -> dict:
        return json.loads((self.out / "report.json").read_text())


@pytest.fixture
def demo(env, tmp_path) -> Iterator[Demo]:
    running = Demo(env, tmp_path / "out")
    yield running
    for pid in running.processes():  # only where a test has failed
        os.kill(pid, signal.SIGKILL)


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Read stderr until a line with these words; the test's own time-out is the deadline."""
    seen = ""
    assert process.stderr is not None
    for line in process.stderr:
        seen += line
        if words in line:
            return seen
    pytest.fail(f"the demo ended without {words!r}:\n{seen}")


def assert_is_picture(path: Path) -> None:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    assert 1000 < width < 4000
    assert 1000 < height < 4000
    assert 50_000 < len(content) < 2_000_000


def assert_ledger_is_closed(demo: Demo, out: str, *, jobs: int) -> None:
    """See that a run accounts for its jobs, and for no others."""
    report = demo.report()
    assert report["closed"] is True
    assert {name: band["queued"] for name, band in report["bands"].items()} == {
        "high": 4,
        "normal": 2,
        "low": jobs,
    }
    for band in report["bands"].values():
        assert band["done"] == band["queued"]
        assert band["failed"] == band["unanswered"] == 0
        assert 0 <= band["waited_ms"]["p50"] <= band["waited_ms"]["p95"] <= band["waited_ms"]["p99"]
    assert 10 < report["series"]["sunspots"]["strongest_period_years"] < 11.5
    assert report["series"]["co2"]["strongest_period"] == pytest.approx(52.2, abs=0.5)
    assert report["series"]["co2"]["summary"]["missing"] == 59
    assert [line.split()[:3] for line in out.splitlines()[1:5]] == [
        ["high", "4", "4"],
        ["normal", "2", "2"],
        ["low", str(jobs), str(jobs)],
        ["all", str(6 + jobs), str(6 + jobs)],
    ]
    assert "strongest period is 11.15 years" in out
    assert_is_picture(demo.out / "report.png")


@pytest.mark.timeout(240)
def test_ctrl_c_ends_everything_and_the_next_run_closes_its_ledger(demo):
    process = demo.start(jobs=3000)
    read_until(process, "jobs ended")
    assert any("worker run low" in command for command in demo.processes().values())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("Interrupted")
    assert "Traceback" not in err
    assert demo.processes() == {}

    # What the first has left in the queues is none of its own.
    code, out, err = demo.run(jobs=60)
    assert code == 0, err
    assert "Traceback" not in err
    assert_ledger_is_closed(demo, out, jobs=60)
    assert demo.processes() == {}


def test_ctrl_c_while_the_daemons_start_leaves_none_of_them(demo):
    process = demo.start(jobs=20)
    read_until(process, "applied")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert demo.processes() == {}


def test_a_daemon_that_dies_ends_the_demo_with_the_end_of_its_log(demo):
    process = demo.start(jobs=3000)
    read_until(process, "jobs ended")
    daemons = [
        pid
        for pid in demo.processes()
        if os.getsid(pid) == pid and "worker run normal" in demo.processes().get(pid, "")
    ]
    assert len(daemons) == 1
    os.kill(daemons[0], signal.SIGKILL)
    began = time.monotonic()
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert "the daemon 'normal' ended with exit code -9" in err
    assert "normal@" in err  # its log
    assert "Traceback" not in err
    assert time.monotonic() - began < 60
    assert demo.processes() == {}


def test_no_rabbitmq_is_one_sentence(tmp_path):
    nowhere = {**os.environ, "RABBITRY_URL": "amqp://guest:guest@127.0.0.1:1/x"}
    demo = Demo(nowhere, tmp_path)
    code, out, err = demo.run(jobs=20)
    assert code == 4
    assert out == ""
    assert "127.0.0.1" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert demo.processes() == {}
