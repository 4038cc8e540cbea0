"""The job that a process of the pool has begun, in memory that the worker's process sees.

To tell of it over a pipe wakes the worker's process once more for each job, while the job runs.
Here it looks when it wants to know: now and then, and when the process is gone.
"""

from __future__ import annotations

import mmap
from struct import Struct

# A job's number, when it began, and its number once more.
_SLOT = Struct("=QdQ")


class Begun:
    """The last job that one process has begun."""

    def __init__(self) -> None:
        self._slot = mmap.mmap(-1, _SLOT.size)

    def note(self, number: int, at: float) -> None:
        """Note a job, in the process that begins it.

        Args:
            number: the pool's, of the job; one is added, since an empty slot has 0.
            at: seconds of `time.monotonic`.
        """
        _SLOT.pack_into(self._slot, 0, number + 1, at, number + 1)

    def last(self) -> tuple[int, float] | None:
        """Return the last job's number and when it began; None where it is being written."""
        first, at, again = _SLOT.unpack_from(self._slot)
        return (first - 1, at) if first and first == again else None
