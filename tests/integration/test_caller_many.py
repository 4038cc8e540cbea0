"""Many calls at once, from threads and coroutines, and what is told on the way."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, as_completed, wait
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.body import Body
from broker.errors import InvalidArguments, InvalidMessage, MessageTooLarge, RemoteError
from broker.reply import Accepted, Progress, reply_body
from producers.caller import Call, Caller, Job
from producers.calls.mapping import AHEAD
from tests.integration.answering import Consumer, echo, success
from tests.waiting import until

THREADS = 8


def backwards(args: Any) -> Body:
    return success(args[0][::-1])


def steps(args: Any) -> list[Body]:
    """Answer as a worker does that tells how far it is."""
    return [
        reply_body("?", "STARTED", None),
        reply_body("?", "PROGRESS", {"fraction": 0.5, "text": "half", "partial": None}),
        reply_body("?", "RETRY", None),
        reply_body("?", "PROGRESS", {"fraction": 1.0, "text": None, "partial": np.arange(3)}),
        success(args[0]),
    ]


@pytest.fixture
def caller(provisioned) -> Iterator[Caller]:
    with Caller(provisioned.topology, provisioned.url) as found:
        yield found


def failing(args: Any) -> Body:
    if args[0] == 3:
        return reply_body("?", "FAILURE", {"exc_type": "Oops", "exc_message": ["three"]})
    return success(args[0])


# -- threads --------------------------------------------------------------------------


def test_threads_share_a_caller_whatever_they_send(caller, consumer) -> None:
    consumer(backwards)
    texts = st.lists(st.text(max_size=200), min_size=1, max_size=12)

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(texts, min_size=THREADS, max_size=THREADS))
    def holds(of_threads: list[list[str]]) -> None:
        got: dict[int, list[str]] = {}

        def work(number: int) -> None:
            calls = [caller.submit("demo.echo", text, timeout_s=30) for text in of_threads[number]]
            got[number] = [call.result() for call in calls]

        threads = [threading.Thread(target=work, args=(each,)) for each in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == {
            number: [text[::-1] for text in texts] for number, texts in enumerate(of_threads)
        }

    holds()
    assert caller.unknown_replies == 0


def test_the_futures_are_those_of_the_standard_library(caller, consumer) -> None:
    consumer(echo)
    calls = [caller.submit("demo.echo", number, timeout_s=20) for number in range(50)]
    assert sorted(call.result() for call in as_completed(calls, timeout=20)) == list(range(50))


def test_a_call_that_is_cancelled_ends_at_once_and_its_reply_is_dropped(caller, consumer) -> None:
    server: Consumer = consumer(echo)
    server.holding = True
    call = caller.submit("demo.echo", 1, timeout_s=60)
    until(lambda: server.requests, timeout_s=10, what="the request")
    assert call.cancel()
    assert call.cancel()
    assert wait([call], timeout=1).done == {call}
    with pytest.raises(CancelledError):
        call.result()
    server.holding = False
    until(lambda: caller.unknown_replies == 1, timeout_s=10, what="the reply to nobody")


# -- many of a kind -------------------------------------------------------------------


def test_results_come_in_order_or_as_they_are_there(caller, consumer) -> None:
    consumer(echo)
    count = AHEAD + 200
    assert list(caller.map("demo.echo", range(count), timeout_s=30)) == list(range(count))
    pairs = list(caller.map("demo.echo", range(count), ordered=False, timeout_s=30))
    assert sorted(pairs) == [(number, number) for number in range(count)]


def test_what_is_slow_holds_nothing_up_that_needs_no_order(caller, consumer) -> None:
    answering = threading.Event()
    consumer(lambda args: success(args[0]) if args[0] or answering.is_set() else None)
    results = caller.map("demo.echo", range(5), ordered=False, timeout_s=20)
    # The first is not answered at all.
    assert {next(results)[0] for _ in range(4)} == {1, 2, 3, 4}
    results.close()
    assert caller._line._calls.take_all() == []


def test_items_are_taken_only_as_far_as_calls_may_run_ahead(caller, consumer) -> None:
    server = consumer(echo)
    server.holding = True
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10 * AHEAD):
            taken.append(number)
            yield number

    results = caller.map("demo.echo", items(), timeout_s=60)
    first = threading.Thread(target=next, args=(results,))
    first.start()
    until(lambda: len(taken) == AHEAD, timeout_s=20, what="so many items")
    server.holding = False
    first.join(20)
    assert len(taken) == AHEAD
    results.close()


@pytest.mark.parametrize("ordered", [True, False])
def test_the_first_failure_ends_a_map_and_cancels_the_rest(caller, consumer, ordered: bool) -> None:
    consumer(failing)
    with pytest.raises(RemoteError, match="Oops: three"):
        list(caller.map("demo.echo", range(10), ordered=ordered, timeout_s=20))
    assert caller._line._calls.take_all() == []


# -- coroutines -----------------------------------------------------------------------


def test_coroutines_call_and_map(caller, consumer) -> None:
    consumer(echo)

    async def run() -> None:
        assert await caller.acall("demo.echo", 1, timeout_s=20) == 1
        assert await (await caller.asubmit("demo.echo", 2, timeout_s=20)) == 2
        several = [caller.acall("demo.echo", number, timeout_s=20) for number in range(100)]
        assert await asyncio.gather(*several) == list(range(100))
        found = [each async for each in caller.amap("demo.echo", range(1200), timeout_s=30)]
        assert found == list(range(1200))
        pairs = [
            each
            async for each in caller.amap("demo.echo", range(1200), ordered=False, timeout_s=30)
        ]
        assert sorted(pairs) == [(number, number) for number in range(1200)]

    asyncio.run(run())


def test_an_error_comes_out_where_it_is_awaited(caller, consumer) -> None:
    consumer(failing)

    async def run() -> None:
        with pytest.raises(RemoteError, match="three"):
            await caller.acall("demo.echo", 3, timeout_s=20)

    asyncio.run(run())


def test_cancelling_a_task_cancels_its_call(caller, consumer) -> None:
    server = consumer(echo)
    server.holding = True

    async def run() -> None:
        task = asyncio.create_task(caller.acall("demo.echo", 1, timeout_s=60))
        while not server.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(caller.acall("demo.echo", 2, timeout_s=60), 0.2)

    asyncio.run(run())
    assert caller._line._calls.take_all() == []


def test_the_event_loop_goes_on_while_the_window_is_full(provisioned, consumer) -> None:
    consumer(echo)

    async def run() -> int:
        turns = 0
        calls = [
            asyncio.create_task(caller.acall("demo.echo", number, timeout_s=30))
            for number in range(200)
        ]
        while not all(call.done() for call in calls):
            turns += 1
            await asyncio.sleep(0.001)
        assert [call.result() for call in calls] == list(range(200))
        return turns

    with Caller(provisioned.topology, provisioned.url, window=2) as caller:
        assert asyncio.run(run()) > 3


# -- news -----------------------------------------------------------------------------


def texts_of(each: Any) -> Any:
    return (each.fraction, each.text) if isinstance(each, Progress) else type(each)


def test_a_stream_yields_news_and_ends_with_the_result(caller, consumer) -> None:
    consumer(steps)
    *news, result = caller.stream("demo.echo", "done", timeout_s=20)
    assert [texts_of(each) for each in news] == [Accepted, (0.5, "half"), (1.0, None)]
    assert news[-1].partial.tolist() == [0, 1, 2]
    assert result == "done"

    async def run() -> list[Any]:
        return [each async for each in caller.astream("demo.echo", "done", timeout_s=20)]

    *news, result = asyncio.run(run())
    assert [texts_of(each) for each in news] == [Accepted, (0.5, "half"), (1.0, None)]
    assert result == "done"


def test_news_come_before_the_result_does(caller, consumer) -> None:
    consumer(lambda args: steps(args)[:2])
    streamed = caller.stream("demo.echo", "never", timeout_s=60)
    started = time.monotonic()
    assert isinstance(next(streamed), Accepted)
    assert next(streamed).text == "half"
    assert time.monotonic() - started < 20
    streamed.close()
    assert caller._line._calls.take_all() == []


def test_a_stream_ends_with_the_error_of_its_call(caller, consumer) -> None:
    consumer(lambda args: [steps(args)[0], failing(args)])
    streamed = caller.stream("demo.echo", 3, timeout_s=20)
    assert isinstance(next(streamed), Accepted)
    with pytest.raises(RemoteError, match="three"):
        next(streamed)


def test_a_call_tells_who_listens_and_keeps_the_last(caller, consumer) -> None:
    server = consumer(steps)
    server.holding = True
    told: list[Any] = []
    call: Call = caller.submit("demo.echo", 1, timeout_s=20, news=True)
    call.on_accepted(told.append)
    call.on_progress(lambda progress: 1 / 0)
    call.on_progress(told.append)
    server.holding = False
    assert call.result() == 1
    assert [texts_of(each) for each in told] == [Accepted, (0.5, "half"), (1.0, None)]
    assert server.requests[0].headers["rabbitry-news"] is True
    late: list[Any] = []
    call.on_accepted(late.append)
    call.on_progress(late.append)
    assert late == [call.accepted, call.progress]


def test_who_wants_no_news_does_not_ask_for_any(caller, consumer) -> None:
    server = consumer(echo)
    assert caller.call("demo.echo", 1, timeout_s=20) == 1
    assert "rabbitry-news" not in server.requests[0].headers


# -- bad input ------------------------------------------------------------------------


def test_what_cannot_be_sent_is_an_error_of_that_call_alone(caller, consumer) -> None:
    consumer(echo)
    with pytest.raises(InvalidMessage, match="object"):
        caller.submit("demo.echo", np.array([object()]))
    with pytest.raises(InvalidMessage):
        caller.submit("demo.echo", object())
    with pytest.raises(MessageTooLarge, match=r"demo\.echo"):
        caller.submit("demo.echo", np.zeros(3 * 2**20))
    with pytest.raises(InvalidArguments, match="delayed"):
        caller.submit(Job("demo.echo", delay_s=3))
    for timeout_s in (0, -1, float("nan"), None, "soon"):
        with pytest.raises(InvalidArguments, match="timeout"):
            caller.call("demo.echo", timeout_s=timeout_s)
    assert caller._line._calls.take_all() == []
    assert caller.call("demo.echo", "good", timeout_s=20) == "good"
