"""In a worker's own process replies are waited for without keeping its loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.app.task import Context

from broker.connection import Address
from broker.frames import Content
from broker.reply import ACCEPTED, FAILURE, PROGRESS, SUCCESS
from consumers.failure.undertaker import Undertaker
from consumers.replies import ReplyBackend
from tests.provision import topology_of


class Receipt:
    """How one reply is sent; ends when it is told to."""

    def __init__(self) -> None:
        self.done = False
        self.outcome: Any = None
        self._callbacks: list[Callable[[Any], None]] = []

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    def end(self) -> None:
        self.done = True
        for callback in self._callbacks:
            callback(self)


class Sender:
    """Notes what is sent, and what was waited for."""

    def __init__(self) -> None:
        self.sent: list[tuple[Content, str, float]] = []
        self.waited: list[Receipt] = []

    def send(self, content: Content, *, id: str, reply_to: str, timeout_s: float) -> Receipt:
        self.sent.append((content, reply_to, timeout_s))
        return Receipt()

    def settle(self, receipt: Receipt) -> None:
        self.waited.append(receipt)


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
def backend(sender: Sender) -> ReplyBackend:
    from celery import Celery

    app = Celery(set_as_current=False, broker="memory://")
    app.replies = sender
    return ReplyBackend(app)


def request_of(**headers: Any) -> Context:
    return Context({"id": "1", "reply_to": "q", "correlation_id": "1", **headers})


@pytest.fixture
def undertaker(tmp_path: Path) -> Undertaker:
    topology, _ = topology_of(tmp_path)
    undertaker = Undertaker(topology, Address.parse("amqp://localhost/"))
    undertaker.serve(SimpleNamespace(call_soon=lambda call, *args: call(*args)))
    return undertaker


def test_replies_of_the_loop_are_not_waited_for(backend: ReplyBackend, sender: Sender) -> None:
    with backend.without_waiting() as replies:
        backend.store_result("1", ValueError("no"), FAILURE, request=request_of())
    assert (len(replies), len(sender.sent), sender.waited) == (1, 1, [])
    backend.store_result("1", 1, SUCCESS, request=request_of())
    assert len(sender.waited) == 1


def test_news_go_to_who_wants_them(backend: ReplyBackend, sender: Sender) -> None:
    plain, ours = request_of(), request_of(**{"rabbitry-call": True})
    asking = request_of(**{"rabbitry-call": True, "rabbitry-news": True})
    for request in (plain, ours, asking):
        for state in (ACCEPTED, PROGRESS, "RETRY"):
            backend.store_result("1", None, state, request=request)
    assert len(sender.sent) == 6
    assert sender.waited == []
    backend.store_result("1", 1, SUCCESS, request=Context({"id": "1", "reply_to": None}))
    assert len(sender.sent) == 6
    assert backend.news_of(ours) is None


@pytest.mark.parametrize(("left_s", "most_s"), [(-5, 1), (0.2, 1), (30, 30), (1e6, 60)])
def test_a_reply_is_tried_until_its_deadline(
    backend: ReplyBackend, sender: Sender, left_s: float, most_s: float
) -> None:
    deadline_ms = round((time.time() + left_s) * 1000)
    backend.store_result("1", 1, SUCCESS, request=request_of(**{"rabbitry-deadline": deadline_ms}))
    [(_, reply_to, timeout_s)] = sender.sent
    assert reply_to == "q"
    assert most_s - 5 <= timeout_s <= most_s + 0.01


def test_a_message_goes_on_when_its_replies_are_over(undertaker: Undertaker) -> None:
    over: list[str] = []
    replies: list[Any] = [Receipt(), Receipt()]
    undertaker.after(replies, object(), lambda: over.append("acknowledged"))
    assert undertaker.busy
    replies[0].end()
    assert undertaker.busy
    assert over == []
    replies[1].end()
    assert not undertaker.busy
    assert over == ["acknowledged"]


def test_a_message_that_nobody_waits_for_goes_on_at_once(undertaker: Undertaker) -> None:
    over: list[str] = []
    undertaker.after([], object(), lambda: over.append("acknowledged"))
    assert over == ["acknowledged"]
    assert not undertaker.busy
