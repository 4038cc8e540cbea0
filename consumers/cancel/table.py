"""Ids of cancelled jobs in memory that a worker shares with the processes that it forks.

A process asks whether a job of its own is in it, as often as its task likes: that reads 64 bytes,
takes no lock and makes no system call.
"""

from __future__ import annotations

from hashlib import blake2b
from mmap import mmap
from threading import Lock

# A worker's own jobs only are put in, so that nothing is forgotten while it runs.
BUCKETS = 1024
_HASH_BYTES = 8
_PLACES = 8
_BUCKET_BYTES = _PLACES * _HASH_BYTES
_EMPTY = bytes(_HASH_BYTES)


class Table:
    """A set of ids, of which a bounded number is remembered; made before the fork.

    Args:
        buckets: of eight ids each; in a full one the oldest makes room.
    """

    def __init__(self, buckets: int = BUCKETS) -> None:
        self._buckets = buckets
        # Anonymous and shared: what one process writes the others see.
        self._memory = mmap(-1, buckets * _BUCKET_BYTES + 1)
        # The last byte: whether there ever was any, which every job asks when it begins.
        self._any_at = buckets * _BUCKET_BYTES
        self._next = bytearray(buckets)
        self._lock = Lock()

    def __len__(self) -> int:
        """Return how many ids are remembered at most."""
        return self._buckets * _PLACES

    def add(self, id: str) -> None:
        """Remember an id; in the process that made the table only."""
        hashed, bucket = self._place_of(id)
        with self._lock:
            if self._find(hashed, bucket) is not None:
                return
            at = self._next[bucket]
            self._next[bucket] = (at + 1) % _PLACES
            self._write(bucket, at, hashed)
            self._memory[self._any_at] = 1

    def discard(self, id: str) -> None:
        """Forget an id; in the process that made the table only."""
        hashed, bucket = self._place_of(id)
        with self._lock:
            at = self._find(hashed, bucket)
            if at is not None:
                self._write(bucket, at, _EMPTY)

    def __contains__(self, id: str) -> bool:
        return bool(self._memory[self._any_at]) and self._find(*self._place_of(id)) is not None

    def _place_of(self, id: str) -> tuple[bytes, int]:
        # Of any text, lone surrogates too.
        hashed = blake2b(id.encode("utf-8", "backslashreplace"), digest_size=_HASH_BYTES).digest()
        if hashed == _EMPTY:  # pragma: no cover - one id in 2**64
            hashed = b"\x01" + hashed[1:]
        return hashed, int.from_bytes(hashed, "little") % self._buckets

    def _find(self, hashed: bytes, bucket: int) -> int | None:
        start = bucket * _BUCKET_BYTES
        row = self._memory[start : start + _BUCKET_BYTES]
        at = row.find(hashed)
        while at >= 0 and at % _HASH_BYTES:
            at = row.find(hashed, at + 1)
        return None if at < 0 else at // _HASH_BYTES

    def _write(self, bucket: int, at: int, hashed: bytes) -> None:
        start = bucket * _BUCKET_BYTES + at * _HASH_BYTES
        # Eight bytes at an address that is a multiple of eight: no reader sees half of them.
        self._memory[start : start + _HASH_BYTES] = hashed
