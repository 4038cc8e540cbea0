"""Durations and sizes as people write them: ``1h30m``, ``250ms``, ``16MiB``."""

from __future__ import annotations

import re
from datetime import timedelta
from fractions import Fraction

_UNIT_US = {
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}
_UNIT_BYTES = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_DURATION_PART = r"[0-9]+(?:\.[0-9]+)?(?:ms|us|d|h|m|s)"
# What a JSON Schema can check; that the units descend is checked here only.
DURATION_PATTERN = rf"^(?:0|(?:{_DURATION_PART})+)$"
SIZE_PATTERN = r"^[0-9]+(?:\.[0-9]+)? ?(?:[KkMmGgTt][Ii]?)?[Bb]?$"

_LIMIT = timedelta(days=365_000)


def parse_duration(text: str) -> timedelta:
    """Read a duration such as ``250ms``, ``1s``, ``5m``, ``2h``, ``14d`` or ``1h30m``.

    Args:
        text: numbers with units from days to microseconds, the larger ones first; ``0`` alone
            needs no unit.

    Raises:
        ValueError: one sentence on what is wrong with the text.
    """
    stripped = text.strip()
    if not re.fullmatch(DURATION_PATTERN, stripped):
        raise ValueError(
            f"{text!r} is not a duration; write numbers with units, such as 250ms, 30s, 5m, 2h,"
            " 14d or 1h30m"
        )
    total = Fraction(0)
    last_us: int | None = None
    for number, unit in re.findall(r"([0-9]+(?:\.[0-9]+)?)(ms|us|d|h|m|s)", stripped):
        unit_us = _UNIT_US[unit]
        if last_us is not None and unit_us >= last_us:
            raise ValueError(
                f"{text!r} is not a duration; its units go from the largest to the smallest,"
                " each at most once, as in 1h30m"
            )
        last_us = unit_us
        total += Fraction(number) * unit_us
    if total.denominator != 1:
        raise ValueError(f"{text!r} is finer than a microsecond; round it")
    if total > _LIMIT // timedelta(microseconds=1):
        raise ValueError(f"{text!r} is longer than a thousand years")
    return timedelta(microseconds=int(total))


def format_duration(duration: timedelta) -> str:
    """Write a duration in the form that `parse_duration` reads back to the same value.

    Raises:
        ValueError: the duration is negative.
    """
    rest = duration // timedelta(microseconds=1)
    if rest < 0:
        raise ValueError("a duration cannot be negative")
    parts = []
    for unit, unit_us in _UNIT_US.items():
        count, rest = divmod(rest, unit_us)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def milliseconds(duration: timedelta) -> int:
    """Return a duration in whole milliseconds, RabbitMQ's unit.

    Raises:
        ValueError: the duration is not a whole number of milliseconds.
    """
    whole, rest = divmod(duration, timedelta(milliseconds=1))
    if rest:
        raise ValueError(f"{format_duration(duration)} is finer than a millisecond; round it")
    return whole


def parse_size(text: str) -> int:
    """Read a size in bytes such as ``1000``, ``1GB`` (10^9) or ``16MiB`` (16 * 2^20).

    Raises:
        ValueError: one sentence on what is wrong with the text.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", text.strip())
    unit = found.group(2).upper() if found else None
    if unit in ("K", "M", "G", "T", "KI", "MI", "GI", "TI"):
        unit += "B"
    if found is None or unit not in _UNIT_BYTES:
        raise ValueError(
            f"{text!r} is not a size; write bytes or a unit, such as 1000, 512KiB, 16MiB or 1GB"
        )
    size = Fraction(found.group(1)) * _UNIT_BYTES[unit]
    if size.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(size)


def format_size(size_bytes: int) -> str:
    """Write a size in the largest unit that leaves a whole number."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        factor = _UNIT_BYTES[unit.upper()]
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return str(size_bytes)
