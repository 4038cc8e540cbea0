"""When something recurs, daylight saving included."""

from __future__ import annotations

import re
from bisect import bisect_right
from datetime import UTC, datetime
from itertools import islice, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.recurrence import Cron, Every, text_of

PARIS = "Europe/Paris"


def at(text: str) -> int:
    """Read a time of UTC, or with an offset."""
    when = datetime.fromisoformat(text)
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


def some(expression: str, timezone: str, after: str, count: int) -> list[str]:
    """Return the next times as UTC, without year and seconds."""
    times = islice(Cron(expression, timezone).checked().times(at(after)), count)
    return [text_of(due_s)[5:16].replace("T", " ") for due_s in times]


@given(st.integers(1, 10**6), st.integers(0, 4 * 10**9))
def test_an_interval_recurs_at_its_multiples_for_all_who_ask(interval_s: int, after_s: int) -> None:
    first, second = islice(Every(interval_s).times(after_s), 2)
    assert first % interval_s == 0
    assert after_s < first <= after_s + interval_s
    assert second == first + interval_s


@pytest.mark.parametrize(
    ("expression", "times"),
    [
        ("3 17 * * sun", ["03-01 17:03", "03-08 17:03", "03-15 17:03"]),
        ("3 17 * * 0", ["03-01 17:03", "03-08 17:03", "03-15 17:03"]),
        ("3 17 * * 7", ["03-01 17:03", "03-08 17:03", "03-15 17:03"]),
        ("0 9-17/4 * * Mon-Fri", ["03-02 09:00", "03-02 13:00", "03-02 17:00"]),
        ("*/20 8 * * *", ["03-01 08:00", "03-01 08:20", "03-01 08:40"]),
        ("5,7 0 1 JAN,jun *", ["06-01 00:05", "06-01 00:07", "01-01 00:05"]),
        ("0 0 31 * *", ["03-31 00:00", "05-31 00:00", "07-31 00:00"]),
        # Day of month and day of week are both fixed: either will do.
        ("0 12 15 * fri", ["03-06 12:00", "03-13 12:00", "03-15 12:00"]),
        # One of them begins with a star: both must hold.
        ("0 12 */5 * fri", ["03-06 12:00", "05-01 12:00", "06-26 12:00"]),
        ("0 0 29 2 *", ["02-29 00:00", "02-29 00:00", "02-29 00:00"]),
    ],
)
def test_a_line_of_cron_means_what_cron_makes_of_it(expression: str, times: list[str]) -> None:
    assert some(expression, "UTC", "2026-03-01T00:00", 3) == times


@pytest.mark.parametrize(
    ("expression", "times"),
    [
        # 2026-03-29: 02:00 becomes 03:00 in Paris, which is 01:00 of UTC.
        ("30 2 * * *", ["03-28 01:30", "03-29 01:00", "03-30 00:30"]),
        ("30 3 * * *", ["03-28 02:30", "03-29 01:30", "03-30 01:30"]),
        ("*/30 2 * * *", ["03-28 01:00", "03-28 01:30", "03-30 00:00"]),
        ("30 */2 * * *", ["03-27 23:30", "03-28 01:30", "03-28 03:30"]),
    ],
)
def test_a_time_that_is_leapt_over_comes_right_after_the_leap(
    expression: str, times: list[str]
) -> None:
    assert some(expression, PARIS, "2026-03-27T23:00", 3) == times


@pytest.mark.parametrize(
    ("expression", "times"),
    [
        # 2026-10-25: 03:00 becomes 02:00 in Paris, which is 01:00 of UTC.
        ("30 2 * * *", ["10-25 00:30", "10-26 01:30", "10-27 01:30"]),
        ("15,45 2 * * *", ["10-25 00:15", "10-25 00:45", "10-26 01:15"]),
        ("*/30 2 * * *", ["10-25 00:00", "10-25 00:30", "10-25 01:00"]),
        ("0 * * * *", ["10-25 00:00", "10-25 01:00", "10-25 02:00"]),
    ],
)
def test_a_time_that_comes_twice_is_due_the_first_time_unless_the_clock_is_followed(
    expression: str, times: list[str]
) -> None:
    assert some(expression, PARIS, "2026-10-24T23:00", 3) == times


@pytest.mark.parametrize("timezone", [PARIS, "America/New_York", "Asia/Kathmandu", "UTC"])
@pytest.mark.parametrize("expression", ["30 2 * * *", "45 1,2,3 * * *", "*/15 * * * *"])
@pytest.mark.parametrize("day", ["2026-03-08", "2026-03-29", "2026-10-25", "2026-11-01"])
def test_who_asks_in_between_gets_the_same_times(timezone: str, expression: str, day: str) -> None:
    cron = Cron(expression, timezone)
    begin_s, end_s = at(f"{day}T00:00") - 7200, at(f"{day}T23:00")
    times = list(takewhile(lambda due_s: due_s <= end_s, cron.times(begin_s)))
    assert times == sorted(set(times))
    for after_s in range(begin_s, times[-1], 1327):
        assert next(cron.times(after_s)) == times[bisect_right(times, after_s)]


@pytest.mark.parametrize(
    ("expression", "timezone", "words"),
    [
        ("3 17 * *", "UTC", "has 4 of the five fields of a line of cron: minute, hour"),
        ("*/10 * * * * *", "UTC", "has 6 of the five"),
        ("@daily", "UTC", "has 1 of the five"),
        ("60 * * * *", "UTC", "'60' is no minute"),
        ("0 24 * * *", "UTC", "'24' is no hour"),
        ("0 0 0 * *", "UTC", "'0' is no day of month"),
        ("0 0 * foo *", "UTC", "'foo' is no month"),
        ("0 0 * * sat-mon", "UTC", "'sat-mon' is no day of week"),
        ("*/0 * * * *", "UTC", "'*/0' is no minute"),
        ("0 0 30 2 *", "UTC", "'30' is no day of month"),
        ("0 0 * * *", "Europe/Pariss", "(did you mean 'Europe/Paris'?)"),
        ("0 0 * * *", "../UTC", "no time zone is named '../UTC'"),
    ],
)
def test_what_cannot_be_meant_is_refused(expression: str, timezone: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        Cron(expression, timezone).checked()


def test_time_zones_need_no_system() -> None:
    import importlib.resources

    assert importlib.resources.files("tzdata.zoneinfo").joinpath(PARIS).is_file()
