"""Where jobs wait for a process of the pool: one socket, read by all of them.

The kernel gives each job to one process that asks, so none waits behind a long one while another
process is free, and what no process has begun can be taken back by reading it.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import socket
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct

# What a socket's buffer takes several of; larger jobs travel beside it.
SMALL_BYTES = 32 * 2**10
_HEAD = Struct(">BQ")
# Of a large job: how long its payload is, which stands first; the rest is one buffer.
_SIZE = Struct(">Q")
_SMALL, _LARGE, _END = 0, 1, 2
# All its pages at once, rather than one by one as they are met.
_MAP = mmap.MAP_SHARED | mmap.MAP_POPULATE
_FD_BYTES = socket.CMSG_LEN(array("i").itemsize)


class InboxEnd(Exception):
    """There are no more jobs for this process."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A job out of the inbox.

    Attributes:
        number: the pool's, of the job.
        payload: what was put.
        buffers: that were put beside it; good for as long as anything refers to them.
    """

    number: int
    payload: bytes | memoryview
    buffers: Sequence[memoryview] = ()


class Inbox:
    """Jobs that no process has taken yet, in order."""

    def __init__(self) -> None:
        self._put, self._take = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._put.setblocking(False)
        self._buffer = bytearray(_HEAD.size + SMALL_BYTES)

    def fileno(self) -> int:
        """Return what is writable when there is room."""
        return self._put.fileno()

    def put(self, number: int, payload: bytes, buffer: bytes = b"") -> bool:
        """Put a job behind the others; returns whether there was room.

        Args:
            number: the pool's, of the job.
            payload: what the process unpickles.
            buffer: what belongs to that, is large and is not to be copied again.
        """
        try:
            if len(payload) <= SMALL_BYTES and not buffer:
                self._put.send(_HEAD.pack(_SMALL, number) + payload)
                return True
            file = os.memfd_create("job", os.MFD_CLOEXEC)
            try:
                with os.fdopen(file, "wb", buffering=0, closefd=False) as content:
                    for part in (_SIZE.pack(len(payload)) + payload, buffer):
                        _write(content, part)
                socket.send_fds(self._put, [_HEAD.pack(_LARGE, number)], [file])
            finally:
                os.close(file)
        except BlockingIOError:
            return False
        return True

    def put_end(self) -> None:
        """Let the process that takes this end; it comes behind the jobs."""
        with contextlib.suppress(BlockingIOError):
            self._put.send(_HEAD.pack(_END, 0))

    def take(self, *, wait: bool) -> Taken | None:
        """Take the next job; the payload is good until the next is taken.

        Args:
            wait: for one, where there is none; else None is returned.

        Raises:
            InboxEnd: this process is to end.
        """
        flags = 0 if wait else socket.MSG_DONTWAIT
        try:
            size, others, _, _ = self._take.recvmsg_into([self._buffer], _FD_BYTES, flags)
        except BlockingIOError:
            return None
        if size == 0:
            raise InboxEnd
        kind, number = _HEAD.unpack_from(self._buffer)
        if kind == _END:
            raise InboxEnd
        if kind == _LARGE:
            (file,) = array("i", others[0][2])
            try:
                # Read where it lies: another copy of what is large takes longer than the rest.
                content = mmap.mmap(file, 0, flags=_MAP, prot=mmap.PROT_READ)
            finally:
                os.close(file)
            (size,) = _SIZE.unpack_from(content)
            view = memoryview(content)[_SIZE.size :]
            return Taken(number, view[:size], [view[size:]] if size < len(view) else ())
        return Taken(number, memoryview(self._buffer)[_HEAD.size : size])

    def drain(self) -> list[int]:
        """Take all that no process has begun; return their numbers."""
        numbers: list[int] = []
        while True:
            try:
                taken = self.take(wait=False)
            except InboxEnd:
                continue
            if taken is None:
                return numbers
            numbers.append(taken.number)

    def close_put(self) -> None:
        """Leave putting to the process that does it; for all others."""
        self._put.close()

    def close(self) -> None:
        """Close both sides."""
        self._put.close()
        self._take.close()


def _write(file: io.RawIOBase, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) or 0 :]
