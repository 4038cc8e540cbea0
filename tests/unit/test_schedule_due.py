"""Which ticks are due, and how far each schedule is done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidMessage
from broker.recurrence import Cron, Every
from broker.topology.schedules import Schedule
from consumers.schedule.due import CATCH_UP_MOST, ON_TIME_S, due, latest, tick_id
from consumers.schedule.marks import GONE_S, Mark, State, adapted, ahead, decode, merged

NOW = 1_800_000_000
MINUTE = Every(60)


def test_a_tick_is_named_by_its_schedule_and_time() -> None:
    assert tick_id("sunday", 1_772_384_580) == "sunday@2026-03-01T17:03:00Z"


@pytest.mark.parametrize("catch_up", ["skip", "latest", "all"])
def test_what_is_not_due_yet_waits(catch_up) -> None:
    assert due(MINUTE, done_s=NOW, now_s=NOW + 59, catch_up=catch_up).ticks == ()
    assert due(MINUTE, done_s=NOW, now_s=NOW + 60, catch_up=catch_up).ticks == (NOW + 60,)


@pytest.mark.parametrize("catch_up", ["skip", "latest", "all"])
def test_a_change_of_leader_loses_no_tick_whatever_the_rule(catch_up) -> None:
    found = due(Every(1), done_s=NOW, now_s=NOW + ON_TIME_S, catch_up=catch_up)
    assert found.ticks == tuple(range(NOW + 1, NOW + ON_TIME_S + 1))
    assert found.skipped == 0


@pytest.mark.parametrize(
    ("catch_up", "ticks", "skipped"),
    [("skip", [], 5), ("latest", [5], 4), ("all", [1, 2, 3, 4, 5], 0)],
)
def test_after_an_outage_the_rule_of_the_schedule_holds(catch_up, ticks, skipped) -> None:
    found = due(MINUTE, done_s=NOW, now_s=NOW + 5 * 60 + 30, catch_up=catch_up)
    assert found.ticks == tuple(NOW + 60 * each for each in ticks)
    assert found.skipped == skipped
    assert found.until_s == NOW + 300


def test_latest_is_content_with_a_tick_that_is_on_time() -> None:
    found = due(MINUTE, done_s=NOW, now_s=NOW + 5 * 60 + 3, catch_up="latest")
    assert found.ticks == (NOW + 300,)


def test_all_is_bounded() -> None:
    found = due(Every(1), done_s=NOW, now_s=NOW + 100_000, catch_up="all")
    assert found.ticks == tuple(range(NOW + 100_001 - CATCH_UP_MOST, NOW + 100_001))
    assert found.skipped == CATCH_UP_MOST


@given(
    st.sampled_from([Every(7), Every(86_400), Cron("*/7 3 * * mon"), Cron("0 0 1 1 *")]),
    st.integers(0, 3 * 365 * 86_400),
    st.integers(1, 20),
)
def test_the_latest_times_are_the_end_of_all_times(recurrence, outage_s: int, most: int) -> None:
    after_s = NOW - outage_s
    found = latest(recurrence, after_s=after_s, until_s=NOW, most=most)
    assert found == sorted(found)
    assert len(found) <= most
    assert all(after_s < due_s <= NOW for due_s in found)
    start_s = found[0] - 1 if len(found) == most else after_s
    expected = []
    for due_s in recurrence.times(start_s):
        if due_s > NOW:
            break
        expected.append(due_s)
    assert found == expected


def schedules(**rules: str) -> dict[str, Schedule]:
    return {
        name: Schedule.model_validate({"job": "j", "every": every}) for name, every in rules.items()
    }


def test_a_new_schedule_begins_now() -> None:
    assert adapted({}, schedules(a="5s"), now_s=NOW) == {"a": Mark(NOW, "every 5s")}


def test_a_known_one_goes_on_and_a_changed_one_begins_anew() -> None:
    marks = {"a": Mark(NOW - 50, "every 5s", "routed"), "b": Mark(NOW - 50, "every 5s", "routed")}
    assert adapted(marks, schedules(a="5s", b="6s"), now_s=NOW) == {
        "a": Mark(NOW - 50, "every 5s", "routed"),
        "b": Mark(NOW, "every 6s"),
    }


def test_one_that_is_gone_is_remembered_for_an_update_and_then_forgotten() -> None:
    marks = {"a": Mark(NOW - 50, "every 5s")}
    gone = adapted(marks, {}, now_s=NOW)
    assert gone == {"a": Mark(NOW - 50, "every 5s", None, NOW)}
    assert adapted(gone, {}, now_s=NOW + GONE_S - 1) == gone
    assert adapted(gone, {}, now_s=NOW + GONE_S) == {}
    assert adapted(gone, schedules(a="5s"), now_s=NOW + 9)["a"] == Mark(NOW - 50, "every 5s")


def test_a_clock_that_was_far_ahead_does_not_silence_a_schedule() -> None:
    marks = {"a": Mark(NOW + 3600, "every 5s"), "b": Mark(NOW + 30, "every 5s")}
    assert list(ahead(marks, now_s=NOW)) == ["a"]
    found = adapted(marks, schedules(a="5s", b="5s"), now_s=NOW)
    assert found["a"].done_s == NOW
    # A little behind another machine's clock: it waits, and repeats nothing.
    assert found["b"].done_s == NOW + 30


def test_two_tokens_are_as_good_as_the_further_one() -> None:
    old, new = {"a": Mark(NOW, "r"), "b": Mark(NOW, "r")}, {"a": Mark(NOW + 5, "r", "routed")}
    both = {"a": Mark(NOW + 5, "r", "routed"), "b": Mark(NOW, "r")}
    assert merged(old, new) == merged(new, old) == both
    assert merged({}, both, both) == both


def test_a_token_is_read_as_it_was_written() -> None:
    state = State({"a": Mark(NOW, "every 5s", "routed"), "b": Mark(NOW, "x", None, 7)}, "me", NOW)
    assert decode(state.encode()) == state


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"{}", b"\xff", b"null", b'{"format": 2}'),
        b'{"format": 1, "leader": "", "written_s": 0, "marks": {"a": {}}}',
    ],
)
def test_what_is_no_token_is_said_to_be_none(content: bytes) -> None:
    with pytest.raises(InvalidMessage, match="token"):
        decode(content)
