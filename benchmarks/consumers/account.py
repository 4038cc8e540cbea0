"""Which jobs were run, and how often: written by whatever runs them, for `accounts`.

Each thread that runs jobs has a file of its own in a folder: how many it has run, in eight bytes,
then a byte for each job. That asks nobody, and costs about a microsecond.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterable
from pathlib import Path

FOLDER, JOBS = "BENCH_ACCOUNT", "BENCH_JOBS"
HEAD_BYTES = 8
# The number that a job's argument begins with.
DIGITS = 8


class Account:
    """Keeps account of the jobs that this process runs."""

    def __init__(self) -> None:
        self._mine = threading.local()

    def add(self, value: str | bytes) -> None:
        """Note that the job with this argument was run: it begins with the job's number."""
        self.add_all((value,))

    def add_all(self, values: Iterable[str | bytes]) -> None:
        """Note that the jobs with these arguments were run."""
        mine = self._mine
        # A child that was forked has inherited its parent's.
        if getattr(mine, "pid", None) != os.getpid():
            self._open()
        memory = mine.memory
        for value in values:
            memory[HEAD_BYTES + int(value[:DIGITS])] += 1
            mine.count += 1
        memory[:HEAD_BYTES] = mine.count.to_bytes(HEAD_BYTES, "little")

    def _open(self) -> None:
        path = Path(os.environ[FOLDER]) / f"{os.getpid()}-{threading.get_ident()}"
        size_bytes = HEAD_BYTES + int(os.environ[JOBS])
        with path.open("w+b") as file:
            file.truncate(size_bytes)
            self._mine.memory = mmap.mmap(file.fileno(), size_bytes)
        self._mine.pid, self._mine.count = os.getpid(), 0
