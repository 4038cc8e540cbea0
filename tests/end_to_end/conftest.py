"""Real daemons as processes, on a small topology in the fresh virtual host of each test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import Provisioned, provisioned
from tests.provision import consumers_of
from tests.waiting import until

__all__ = ["provisioned"]

Start = Callable[..., "Daemon"]


class Daemon:
    """A process and its log."""

    def __init__(self, command: list[str], *, env: dict[str, str], log: Path, cwd: Path) -> None:
        self.log_path = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def stop(self, timeout_s: float = 60) -> int:
        """Ask it to stop; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def end(self) -> None:
        """End it and its children, however it is."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def start(provisioned: Provisioned, env: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Start a command; with `queue`, wait until that queue has a consumer."""
    daemons: list[Daemon] = []

    def run(*command: str, queue: str | None = "jobs.normal") -> Daemon:
        log = tmp_path / f"daemon-{len(daemons)}.log"
        daemon = Daemon(
            list(command),
            env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path)},
            log=log,
            cwd=tmp_path,
        )
        daemons.append(daemon)

        def ready() -> bool:
            assert daemon.process.poll() is None, daemon.log
            return queue is None or consumers_of(provisioned.address, queue) > 0

        until(ready, timeout_s=30, what="the daemon to consume")
        return daemon

    yield run
    for daemon in daemons:
        daemon.end()


@pytest.fixture
def worker(start: Start) -> Daemon:
    """The worker `normal` of the small topology, consuming."""
    return start(sys.executable, "-m", "rabbitry", "worker", "run", "normal")
