"""Calls end with the reply that is theirs, or with an error that says why not."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from broker.body import Body, encode
from broker.errors import (
    CallTimeout,
    InvalidArguments,
    InvalidReply,
    OutcomeUnknown,
    RemoteError,
    Unroutable,
)
from producers.caller import Caller, Job
from tests.integration.answering import echo, success


def test_each_call_gets_its_own_reply(provisioned, consumer) -> None:
    consumer(echo)
    with Caller(provisioned.topology, provisioned.url) as caller:
        assert caller.call("demo.echo", "x", timeout_s=10) == "x"
        calls = [caller.submit("demo.echo", i, timeout_s=20) for i in range(500)]
        assert [call.result() for call in calls] == list(range(500))
        assert list(caller.map("demo.echo", range(1500), timeout_s=20)) == list(range(1500))
        assert caller.unknown_replies == 0


def test_threads_share_a_caller(provisioned, consumer) -> None:
    consumer(echo)
    wrong: list[Any] = []

    def work(number: int) -> None:
        for index in range(50):
            value = [number, index]
            if caller.call("demo.echo", value, timeout_s=20) != value:
                wrong.append(value)

    with Caller(provisioned.topology, provisioned.url) as caller:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_arrays_travel_both_ways(provisioned, consumer) -> None:
    consumer(lambda args: success({"twice": args[0] * 2, "first": args[0][:1]}))
    with Caller(provisioned.topology, provisioned.url) as caller:
        result = caller.call("demo.echo", np.arange(4.0), timeout_s=10)
    assert result["twice"].tolist() == [0.0, 2.0, 4.0, 6.0]
    assert result["first"].tolist() == [0.0]


def test_an_error_in_the_worker_comes_back_by_name(provisioned, consumer) -> None:
    failure = {"exc_type": "Oops", "exc_module": "somewhere", "exc_message": ["broken"]}
    consumer(
        lambda args: encode({"status": "FAILURE", "result": failure, "traceback": "at line 1"})
    )
    with (
        Caller(provisioned.topology, provisioned.url) as caller,
        pytest.raises(RemoteError, match=r"somewhere\.Oops: broken") as caught,
    ):
        caller.call("demo.echo", timeout_s=10)
    assert caught.value.remote_class == "somewhere.Oops"
    assert caught.value.remote_traceback == "at line 1"


def test_a_call_that_nobody_answers_ends_at_its_timeout(provisioned) -> None:
    with Caller(provisioned.topology, provisioned.url) as caller:
        caller.connect()
        started = time.monotonic()
        with pytest.raises(CallTimeout, match=r"0\.4 s"):
            caller.call("demo.echo", timeout_s=0.4)
        assert 0.4 <= time.monotonic() - started < 0.6


def test_a_request_that_reaches_no_queue_fails_at_once(provisioned) -> None:
    with Caller(provisioned.topology, provisioned.url) as caller, pytest.raises(Unroutable):
        caller.call("test.nowhere", timeout_s=20)


def test_without_rabbitmq_a_call_was_never_sent(provisioned) -> None:
    with (
        Caller(provisioned.topology, "amqp://guest:guest@127.0.0.1:1/") as caller,
        pytest.raises(OutcomeUnknown) as caught,
    ):
        caller.call("demo.echo", timeout_s=0.3)
    assert caught.value.sent is False


@pytest.mark.parametrize(
    "body",
    [
        Body(b"\x80\x04", "application/x-python-serialize", "binary"),
        Body(b"{", "application/json", "utf-8"),
        Body(b"[1]", "application/json", "utf-8"),
        Body(b"{}", "application/vnd.rabbitry.arrays+json", "binary"),
    ],
    ids=["pickle", "cut JSON", "another shape", "lies about its type"],
)
def test_a_reply_that_cannot_be_read_fails_that_call_only(
    provisioned, consumer, body: Body
) -> None:
    consumer(lambda args: body if args[0] == "bad" else success(args[0]))
    with Caller(provisioned.topology, provisioned.url) as caller:
        bad = caller.submit("demo.echo", "bad", timeout_s=10)
        good = caller.submit("demo.echo", "good", timeout_s=10)
        with pytest.raises(InvalidReply):
            bad.result()
        assert good.result() == "good"


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_a_timeout_of_nothing_is_refused(provisioned, timeout_s: float) -> None:
    with (
        Caller(provisioned.topology, provisioned.url) as caller,
        pytest.raises(InvalidArguments, match="timeout"),
    ):
        caller.submit("demo.echo", timeout_s=timeout_s)


def test_an_id_can_be_under_way_only_once(provisioned) -> None:
    with Caller(provisioned.topology, provisioned.url) as caller:
        caller.submit(Job("demo.echo", id="one"), timeout_s=20)
        with pytest.raises(InvalidArguments, match="under way"):
            caller.submit(Job("demo.echo", id="one"), timeout_s=20)


def test_closing_ends_what_is_under_way(provisioned) -> None:
    caller = Caller(provisioned.topology, provisioned.url)
    call = caller.submit("demo.echo", timeout_s=60)
    call.receipt.wait()
    caller.close()
    with pytest.raises(OutcomeUnknown, match="closed"):
        call.result(timeout=1)
