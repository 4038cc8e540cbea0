"""Durations and sizes, written and read."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.units import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    format_duration,
    format_size,
    milliseconds,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("250ms", timedelta(milliseconds=250)),
        ("1s", timedelta(seconds=1)),
        ("5m", timedelta(minutes=5)),
        ("2h", timedelta(hours=2)),
        ("14d", timedelta(days=14)),
        ("1h30m", timedelta(minutes=90)),
        ("1.5s", timedelta(milliseconds=1500)),
        ("0", timedelta()),
        (" 3us ", timedelta(microseconds=3)),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-1s", "1 s", "1m1h", "1s1s", "1week", "0.5us", "1e3s", "9999999d"]
)
def test_what_is_no_duration_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        parse_duration(text)


@given(st.timedeltas(min_value=timedelta(), max_value=timedelta(days=300_000)))
def test_a_duration_goes_round(duration: timedelta) -> None:
    text = format_duration(duration)
    assert parse_duration(text) == duration
    assert re.search(DURATION_PATTERN, text)


def test_milliseconds_are_never_rounded() -> None:
    assert milliseconds(timedelta(seconds=1.5)) == 1500
    with pytest.raises(ValueError, match="finer than a millisecond"):
        milliseconds(timedelta(microseconds=1500))
    with pytest.raises(ValueError, match="negative"):
        format_duration(timedelta(seconds=-1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000", 1000),
        ("16MiB", 16 * 2**20),
        ("1GB", 10**9),
        ("1.5k", 1500),
        ("2 KiB", 2048),
        ("0", 0),
        ("7B", 7),
    ],
)
def test_a_size_is_read_as_people_write_it(text: str, expected: int) -> None:
    assert parse_size(text) == expected
    assert re.search(SIZE_PATTERN, text)


@pytest.mark.parametrize("text", ["", "x", "1PB", "-1", "1.5", "1 2"])
def test_what_is_no_size_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        parse_size(text)


@given(st.integers(min_value=0, max_value=2**60))
def test_a_size_goes_round(size: int) -> None:
    text = format_size(size)
    assert parse_size(text) == size
    assert re.search(SIZE_PATTERN, text)
