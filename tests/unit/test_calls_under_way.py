"""Calls under way by id and deadline, and news that nobody takes, without a broker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidArguments, OutcomeUnknown
from broker.reply import News, Progress
from producers.calls.call import Call
from producers.calls.streams import MOST_NEWS, stream
from producers.calls.under_way import GRACE_S, CallsUnderWay


def call_of(id: str, ends_at: float = 10.0, *, sent: bool = True) -> Call:
    """Return a call that ends at a time."""
    call = Call(id=id, job="demo.echo", timeout_s=1.0, give_up=lambda call: True)
    call.ends_at = ends_at
    receipt: Any = SimpleNamespace(sent=sent, done=sent, exchange="jobs", routing_key="key")
    call.receipt = receipt
    return call


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=40), st.integers(0, 20))
def test_what_is_late_is_taken_once_and_nothing_else_is(
    given: list[tuple[int, bool]], now: int
) -> None:
    calls = CallsUnderWay()
    added: list[tuple[Call, bool]] = []
    for number, (ends_at, answered) in enumerate(given):
        call = call_of(str(number), float(ends_at))
        soonest = all(ends_at < other.ends_at for other, _ in added)
        assert calls.add(call) == soonest
        added.append((call, answered))
    for call, answered in added:
        if answered:
            assert calls.take(call)
            assert not calls.take(call)
    late, look_at = calls.take_late(float(now))
    wanted = {call for call, answered in added if not answered and call.ends_at <= now}
    assert set(late) == wanted
    assert len(late) == len(wanted)
    left = [call.ends_at for call, answered in added if not answered and call.ends_at > now]
    assert look_at <= min(left, default=float("inf"))
    assert look_at > now
    assert len(calls) == len(left)
    assert calls.take_late(float(now))[0] == []


def test_an_id_is_taken_until_its_call_has_ended() -> None:
    calls = CallsUnderWay()
    first, second = call_of("one", 5.0), call_of("one", 7.0)
    calls.add(first)
    with pytest.raises(InvalidArguments, match="under way"):
        calls.add(second)
    assert calls.take(first)
    calls.add(second)
    # The first's deadline is not the second's.
    assert calls.take_late(6.0) == ([], 7.0)
    assert calls.get("one") is second
    assert not calls.take(first)
    assert calls.take_late(7.0)[0] == [second]


def test_what_was_never_written_is_left_to_its_publish_for_a_moment() -> None:
    calls = CallsUnderWay()
    call = call_of("one", 5.0, sent=False)
    calls.add(call)
    late, look_at = calls.take_late(5.0)
    assert (late, look_at) == ([], 5.0 + GRACE_S)
    assert calls.take_late(look_at)[0] == [call]


def test_of_news_that_nobody_takes_the_last_are_kept() -> None:
    call = call_of("one")
    tells: list[Any] = []

    def submit(tell: Any) -> Call:
        tells.append(tell)
        return call

    streamed = stream(submit)
    news: list[News] = [Progress("one", fraction=n / 10_000) for n in range(MOST_NEWS + 50)]
    for each in news:
        tells[0](each)
    call.end(result="done")
    *told, result = streamed
    assert told == news[50:]
    assert result == "done"


def test_a_call_of_the_parents_is_unknown_in_a_forked_process() -> None:
    call, over = call_of("one"), call_of("two")
    over.end(result=2)
    for each in (call, over):
        each._pid += 1
    with pytest.raises(OutcomeUnknown, match="parent learns of it"):
        call.result()
    with pytest.raises(OutcomeUnknown, match="parent learns of it"):
        call.exception()
    assert over.result() == 2
