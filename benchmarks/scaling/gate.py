"""Holds the first job of each process until all processes have one, so that all begin at once.

Daemons take seconds to start, and one after the other: without a gate the first would have done
most of the work before the last is there. A process makes a file of its own in the gate's folder,
and waits for the one that opens it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

FOLDER = "BENCH_GATES"
ASK_AGAIN_S = 0.005
_OPEN = "open"


class Gate:
    """The gate of one job, as the processes see it that run it."""

    def __init__(self, job: str) -> None:
        """Name the job."""
        self._job = job
        self._passed = False

    def enter(self) -> None:
        """Wait until the gate is open; each process waits once."""
        if self._passed:
            return
        folder = Path(os.environ[FOLDER]) / self._job
        folder.mkdir(exist_ok=True)
        (folder / str(os.getpid())).touch()
        while not (folder / _OPEN).exists():
            time.sleep(ASK_AGAIN_S)
        self._passed = True


class Gates:
    """The gates of all jobs, as whoever opens them sees them."""

    def __init__(self, folder: Path) -> None:
        """Make the folder that they are in."""
        folder.mkdir()
        self._folder = folder

    @property
    def environment(self) -> Mapping[str, str]:
        """What the processes that run jobs have to be told."""
        return {FOLDER: str(self._folder)}

    def waiting(self, job: str) -> int:
        """Return how many processes are at a job's gate, as long as it is closed."""
        folder = self._folder / job
        return len(list(folder.iterdir())) if folder.exists() else 0

    def open(self, job: str) -> None:
        """Let all processes that wait, and that will come, run this job."""
        folder = self._folder / job
        folder.mkdir(exist_ok=True)
        (folder / _OPEN).touch()
