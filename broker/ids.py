"""Ids of messages: random UUIDs (RFC 9562, version 4), made many at a time."""

from __future__ import annotations

import os

BATCH = 256


class Ids:
    """A supply of unique ids; may be used from any thread, and after a fork."""

    def __init__(self) -> None:
        self._made: list[str] = []
        self._pid = os.getpid()

    def take(self) -> str:
        """Return an id that nobody else has."""
        if self._pid != os.getpid():
            # What a fork copied is the parent's.
            self._made, self._pid = [], os.getpid()
        try:
            return self._made.pop()
        except IndexError:
            # Taken from what is nobody else's yet: other threads may empty the supply meanwhile.
            made = _make(BATCH)
            id = made.pop()
            self._made += made
            return id


def _make(count: int) -> list[str]:
    # One system call for all; `uuid.uuid4` needs one for each, and makes an object besides.
    digits = os.urandom(16 * count).hex()
    return [
        f"{digits[at : at + 8]}-{digits[at + 8 : at + 12]}-4{digits[at + 13 : at + 16]}"
        f"-{_VARIANT[digits[at + 16]]}{digits[at + 17 : at + 20]}-{digits[at + 20 : at + 32]}"
        for at in range(0, 32 * count, 32)
    ]


# The two highest bits of the ninth byte are 1 and 0.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
