"""Keeps the memory of large messages at hand from one to the next."""

from __future__ import annotations

from functools import cache

# What is smaller is kept by itself.
LARGE_BYTES = 2**20
# Twice as much stays with the process when it is freed. Above 32 MiB it would have no effect.
LEARNT_BYTES = 24 * 2**20


@cache
def keep_freed() -> None:
    """Let the C library keep the memory that large messages leave; once in a process.

    glibc returns it to the kernel, which hands it out again page by page: 16 ms for two messages of
    8 MB, which are copied in one. It stops to do so for what is as large as the largest block that
    it has seen freed (``M_MMAP_THRESHOLD`` of mallopt(3)): so it is shown one, whose memory nobody
    has touched. Other C libraries are left as they are by that.
    """
    bytes(LEARNT_BYTES)
