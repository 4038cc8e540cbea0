"""Reads what the processes of the pool tell, as much at a time as there is."""

from __future__ import annotations

import os
import pickle
import select
from collections.abc import Callable
from struct import Struct
from typing import Any

from billiard.pool import ACK
from celery.concurrency import asynpool

READ_BYTES = 64 * 2**10
# At shutdown nobody else waits meanwhile.
_LAST_WAIT_S = 0.1
_size = Struct(">i").unpack_from
_long_size = Struct(">Q").unpack_from


class JobResults(asynpool.ResultHandler):  # type: ignore[misc]
    """Celery's reader of results, with a buffer for each process."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._buffers: dict[int, bytearray] = {}
        super().__init__(*args, **options)

    def read(self, fileno: int) -> bool:
        """Deal with what a process has told; returns whether there may be more.

        Args:
            fileno: of its pipe, which does not block.

        Raises:
            OSError: the pipe is gone.
            EOFError: the process is gone.
        """
        try:
            data = os.read(fileno, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            raise EOFError
        buffer = self._buffers.pop(fileno, None)
        if buffer is not None:
            buffer += data
        self._deal(fileno, data if buffer is None else buffer)
        return len(data) == READ_BYTES

    def forget(self, fileno: int) -> None:
        """Forget what was read of a message whose end does not come."""
        self._buffers.pop(fileno, None)

    def _deal(self, fileno: int, data: bytes | bytearray) -> None:
        view, at, end = memoryview(data), 0, len(data)
        try:
            while end - at >= 4:
                start, (size,) = at + 4, _size(data, at)
                if size == -1:
                    if end - start < 8:
                        break
                    start, (size,) = start + 8, _long_size(data, start)
                if end - start < size:
                    break
                at = start + size
                message = pickle.loads(view[start:at])
                if message and not self._is_known(message):
                    self.on_state_change(message)
        finally:
            if at < end:
                self._buffers[fileno] = bytearray(view[at:])

    def _is_known(self, message: Any) -> bool:
        """Say whether somebody has looked before it was told that a job has begun."""
        kind, args = message
        job = self.cache.get(args[0]) if kind == ACK else None
        return job is not None and bool(job._accepted)

    def _make_process_result(self, hub: Any) -> Callable[[int], None]:
        def on_readable(fileno: int) -> None:
            try:
                self.read(fileno)
            except (OSError, EOFError):
                hub.remove_reader(fileno)

        return on_readable

    def _flush_outqueue(
        self, fd: int, remove: Any, process_index: Any, on_state_change: Any
    ) -> Any:
        if fd not in process_index:
            return remove(fd)
        try:
            if select.select([fd], [], [], _LAST_WAIT_S)[0]:
                self.read(fd)
        except (OSError, ValueError, EOFError):
            return remove(fd)
        return None
