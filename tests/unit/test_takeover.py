"""Which messages are taken by jobs that run already, or are done."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state

from consumers.takeover import MOST_DONE, Takeover


class FakeMessage:
    """A delivery, and whether it was acknowledged."""

    def __init__(
        self, id: str, *, tag: str, redelivered: bool = True, connected: bool = True
    ) -> None:
        self.headers = {"id": id}
        self.delivery_info = {"consumer_tag": tag, "redelivered": redelivered}
        self.channel = SimpleNamespace(connection=SimpleNamespace(connected=connected))
        self.acknowledged = False

    def ack_log_error(self, _logger: Any, _errors: Any) -> None:
        self.acknowledged = True


@pytest.fixture
def takeover() -> Takeover:
    active = {"jobs": "now", "others": "other"}
    task_consumer = SimpleNamespace(_active_tags=active)
    return Takeover(SimpleNamespace(task_consumer=task_consumer, connection_errors=()))


def test_a_message_is_gone_with_its_consumer_or_its_connection(takeover) -> None:
    assert not takeover.is_gone(FakeMessage("a", tag="now"))
    assert takeover.is_gone(FakeMessage("a", tag="before"))
    assert takeover.is_gone(FakeMessage("a", tag="now", connected=False))


def test_a_job_that_was_done_without_its_message_acknowledges_it_once(takeover) -> None:
    takeover.done(FakeMessage("a", tag="before"), "a", "jobs")
    # Of the same id, but in another queue: another job.
    assert not takeover.take(FakeMessage("a", tag="other"))
    back = FakeMessage("a", tag="now")
    assert takeover.take(back)
    assert back.acknowledged
    assert not takeover.take(FakeMessage("a", tag="now"))


def test_a_job_whose_message_is_there_is_none_to_remember(takeover) -> None:
    takeover.done(FakeMessage("a", tag="now"), "a", "jobs")
    assert not takeover.take(FakeMessage("a", tag="now"))


def test_a_job_that_is_published_anew_runs_again_and_in_each_attempt(takeover) -> None:
    takeover.done(FakeMessage("a", tag="before"), "a", "jobs")
    assert not takeover.take(FakeMessage("a", tag="now", redelivered=False))
    assert not takeover.take(FakeMessage("a", tag="now"))


def test_of_very_many_the_oldest_are_forgotten(takeover) -> None:
    for number in range(MOST_DONE + 1):
        takeover.done(FakeMessage("", tag="before"), str(number), "jobs")
    assert not takeover.take(FakeMessage("0", tag="now"))
    assert takeover.take(FakeMessage("1", tag="now"))


def test_a_running_job_is_asked_whether_it_goes_on_with_the_message(takeover, monkeypatch) -> None:
    asked = []

    def take_over(message: Any, queue: str) -> bool:
        asked.append((message, queue))
        return len(asked) == 1

    monkeypatch.setitem(state.requests, "a", SimpleNamespace(take_over=take_over))
    back = FakeMessage("a", tag="now")
    assert takeover.take(back)
    assert asked == [(back, "jobs")]
    # It holds its message: this one is another.
    assert not takeover.take(FakeMessage("a", tag="now"))
    assert not takeover.take(FakeMessage("a", tag="now", redelivered=False))
    assert not takeover.take(FakeMessage("b", tag="now"))
