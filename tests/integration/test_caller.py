"""Calls end with the reply that is theirs, or with an error that says why not."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from broker.body import Body, decode, encode
from broker.connection import connect
from broker.errors import (
    CallTimeout,
    InvalidArguments,
    InvalidReply,
    OutcomeUnknown,
    RemoteError,
    Unroutable,
)
from broker.management import Management
from producers.caller import Caller, Job
from tests.waiting import until

Answer = Callable[[Any], Body | None]


class Consumer:
    """Consumes jobs.normal in a thread and answers each request as it is told."""

    def __init__(self, address: Any, answer: Answer) -> None:
        self.requests: list[Any] = []
        self._answer = answer
        self._connection = connect(address)
        self._channel = self._connection.channel()
        self._channel.basic_consume("jobs.normal", no_ack=True, callback=self._on_request)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _on_request(self, message: Any) -> None:
        self.requests.append(message)

    def _reply(self, message: Any) -> None:
        import amqp

        args, _, _ = decode(message.body, message.properties["content_type"])
        body = self._answer(args)
        if body is None:
            return
        reply = amqp.Message(
            body.content,
            content_type=body.content_type,
            content_encoding=body.content_encoding,
            correlation_id=message.properties["correlation_id"],
        )
        self._channel.basic_publish(reply, "", message.properties["reply_to"])

    def _run(self) -> None:
        answered = 0
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                self._connection.drain_events(timeout=0.05)
            # Not from the callback: py-amqp reads again while it publishes.
            while answered < len(self.requests):
                self._reply(self.requests[answered])
                answered += 1

    def close(self) -> None:
        self._stopping = True
        self._thread.join()
        self._connection.release()


def success(result: Any) -> Body:
    return encode({"task_id": "?", "status": "SUCCESS", "result": result, "traceback": None})


@pytest.fixture
def consumer(provisioned) -> Iterator[Callable[[Answer], Consumer]]:
    started: list[Consumer] = []

    def start(answer: Answer) -> Consumer:
        started.append(Consumer(provisioned.address, answer))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_each_call_gets_its_own_reply(provisioned, consumer) -> None:
    consumer(lambda args: success(args[0]))
    with Caller(provisioned.topology, provisioned.url) as caller:
        assert caller.call("demo.echo", "x", timeout_s=10) == "x"
        calls = [caller.submit("demo.echo", i, timeout_s=20) for i in range(500)]
        assert [call.result() for call in calls] == list(range(500))
        assert list(caller.map("demo.echo", range(1500), timeout_s=20)) == list(range(1500))
        assert caller.unknown_replies == 0


def test_threads_share_a_caller(provisioned, consumer) -> None:
    consumer(lambda args: success(args[0]))
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


def test_a_lost_connection_ends_outstanding_calls_and_the_next_one_works(
    provisioned, consumer
) -> None:
    answering = threading.Event()
    server = consumer(lambda args: success(args[0]) if answering.is_set() else None)
    vhost = provisioned.address.vhost_name
    with (
        Caller(provisioned.topology, provisioned.url) as caller,
        Management(provisioned.address) as management,
    ):
        lost = caller.submit("demo.echo", 1, timeout_s=60)
        until(lambda: server.requests, timeout_s=10, what="the request")

        def callers() -> list[str]:
            return [
                each["connection_details"]["name"]
                for each in management.get("channels")
                if each["vhost"] == vhost and each.get("confirm")
            ]

        for name in until(callers, timeout_s=20, what="the caller's channel to be listed"):
            management.delete("connections", name)
        with pytest.raises(OutcomeUnknown) as caught:
            lost.result(timeout=20)
        assert caught.value.sent is True
        answering.set()
        assert caller.call("demo.echo", 2, timeout_s=20) == 2


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
