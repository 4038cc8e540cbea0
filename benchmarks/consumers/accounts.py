"""Which jobs were run, and how often: read from what `account` writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.consumers.account import FOLDER, HEAD_BYTES, JOBS


class Accounts:
    """Reads the accounts of all that run jobs."""

    def __init__(self, folder: Path, jobs: int) -> None:
        """Make the folder.

        Args:
            folder: where the accounts are.
            jobs: how many there are.
        """
        folder.mkdir()
        self._folder = folder
        self._jobs = jobs

    @property
    def environment(self) -> Mapping[str, str]:
        """What whoever runs jobs has to be told."""
        return {FOLDER: str(self._folder), JOBS: str(self._jobs)}

    def seen(self) -> int:
        """Return how many jobs were run until now."""
        return sum(_head(each) for each in self._folder.iterdir())

    def done_and_twice(self) -> tuple[int, int]:
        """Return how many different jobs were run, and how many runs there were beyond."""
        runs = np.zeros(self._jobs, dtype=np.int64)
        for each in self._folder.iterdir():
            runs += np.frombuffer(each.read_bytes()[HEAD_BYTES:], dtype=np.uint8)
        done = int(np.count_nonzero(runs))
        return done, int(runs.sum()) - done


def _head(path: Path) -> int:
    with path.open("rb") as file:
        return int.from_bytes(file.read(HEAD_BYTES), "little")
