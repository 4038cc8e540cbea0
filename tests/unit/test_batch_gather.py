"""Messages gather until a batch is full, or its first one has waited; some run alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state
from kombu.asynchronous.timer import Timer

from broker.body import JSON, encode
from broker.case_file import Reason
from broker.message import EMBED
from consumers.batch import gather
from consumers.batch.gather import Gatherer, item_of
from consumers.batch.item import Failed, Item, Report, Word
from consumers.batch.task import BatchTask
from consumers.cancel.jobs import CancelledJobs
from consumers.failure.failure import Failure
from consumers.observer import JobObserver
from tests.waiting import until


class Consumer:
    """As much of a consumer as a gatherer asks for; its slots are given by hand."""

    hostname = "normal@here"
    connection_errors = (OSError,)

    def __init__(self, *tasks: BatchTask) -> None:
        self.app = SimpleNamespace(
            tasks={task.name: task for task in tasks},
            observer=JobObserver(),
            cancelled=CancelledJobs(),
            takeover=SimpleNamespace(
                take=lambda message: message in self.taken,
                is_gone=lambda message: message.channel is None,
                done=lambda message, id, queue: self.done.append((id, queue)),
            ),
            undertaker=SimpleNamespace(
                give_back=lambda message: self.returned.append(message),
                after=lambda replies, message, then: then(),
            ),
            replies=SimpleNamespace(unconfirmed=list),
            timezone=None,
        )
        self.task_consumer = SimpleNamespace(_active_tags={"jobs.normal": "tag"})
        self.timer = Timer()
        self._scheduler = iter(self.timer)
        self.submitted: list[Any] = []
        self.returned: list[Any] = []
        self.taken: list[Any] = []
        self.done: list[tuple[str, str]] = []
        self.calls: list[tuple[Any, ...]] = []
        self.pool = SimpleNamespace(
            body_can_be_buffer=False,
            apply_async=lambda target, args, **_: self.calls.append(args),
        )

    def call_soon(self, function: Any, *args: Any) -> None:
        function(*args)

    def turn(self) -> None:
        """Call what is due, as the event loop does."""
        if self.timer.queue:
            _, entry = next(self._scheduler)
            if entry is not None:
                entry()

    def on_task_request(self, batch: Any) -> None:
        self.submitted.append(batch)


def task(name: str = "test.job", *, size: int = 3, wait_s: float = 60.0) -> BatchTask:
    made = BatchTask()
    made.name, made.size, made.wait_s = name, size, wait_s
    return made


def message(id: str = "1", job: str = "test.job", **changes: Any) -> Any:
    headers = {"task": job, "id": id, **changes.pop("headers", {})}
    body = encode([[1], {}, EMBED])
    settings = {
        "headers": headers,
        "properties": {},
        "body": body.content,
        "content_type": body.content_type,
        "delivery_info": {"consumer_tag": "tag", "redelivered": False},
        "errors": [],
        "channel": None,
        **changes,
    }
    return SimpleNamespace(**settings)


def gathered(*tasks: BatchTask) -> tuple[Gatherer, Consumer]:
    consumer = Consumer(*tasks)
    return Gatherer(consumer, lambda message: None), consumer


def turned_until(consumer: Consumer, condition: Callable[[], object]) -> None:
    def turn() -> object:
        consumer.turn()
        return condition()

    until(turn, timeout_s=10, what="the wait to be over")


def sizes(consumer: Consumer) -> list[int]:
    return [len(batch) for batch in consumer.submitted]


def test_a_full_batch_asks_for_a_slot_and_the_next_message_begins_another() -> None:
    gatherer, consumer = gathered(task(size=3), task("test.other", size=3))
    assert gatherer.is_needed
    for n in range(7):
        assert gatherer.take(message(str(n)))
        assert gatherer.take(message(f"other-{n}", "test.other"))
    assert sizes(consumer) == [3, 3, 3, 3]
    assert [batch.name for batch in consumer.submitted] == ["test.job", "test.other"] * 2
    assert sorted(map(len, gatherer.close())) == [1, 1]


def test_a_message_asks_for_a_slot_when_it_has_waited_and_fills_up_until_there_is_one() -> None:
    gatherer, consumer = gathered(task(size=3, wait_s=0.001))
    gatherer.take(message("first"))
    turned_until(consumer, lambda: consumer.submitted)
    gatherer.take(message("second"))
    (batch,) = consumer.submitted
    batch.execute_using_pool(consumer.pool)
    ((name, items, _),) = consumer.calls
    assert (name, [Item(*item).id for item in items]) == ("test.job", ["first", "second"])
    gatherer.take(message("third"))
    assert len(batch) == 2


def test_no_batch_is_larger_than_a_worker_should_copy(monkeypatch) -> None:
    monkeypatch.setattr(gather, "MOST_BYTES", 100)
    gatherer, consumer = gathered(task(size=1000))
    for n in range(4):
        gatherer.take(message(str(n), body=b"x" * 60))
    assert sizes(consumer) == [2, 2]


def test_what_is_closed_can_be_returned_and_is_not_reserved_any_more() -> None:
    gatherer, consumer = gathered(task())
    first = message("first")
    gatherer.take(first)
    (batch,) = gatherer.close()
    assert batch in state.reserved_requests
    batch.give_back()
    batch.give_back()
    assert consumer.returned == [first]
    assert batch not in state.reserved_requests
    batch.submit()
    assert not consumer.submitted


def test_what_is_done_after_its_connection_was_lost_is_noted_and_the_rest_runs_again() -> None:
    gatherer, consumer = gathered(task(size=3))
    for id in ("done", "failed", "taken over"):
        gatherer.take(message(id))
    (batch,) = consumer.submitted
    batch.execute_using_pool(consumer.pool)
    batch.on_accepted(1, 0.0)
    assert state.requests["taken over"] is batch
    acknowledged: list[str] = []
    again = message(
        "taken over", channel=object(), ack_log_error=lambda *_: acknowledged.append("taken over")
    )
    assert not batch.take_over(again, "jobs.other")
    assert batch.take_over(again, "jobs.normal")
    assert not batch.take_over(again, "jobs.normal"), "it is held already"
    assert not batch.take_over(message("unknown"), "jobs.normal")
    failed = Failed(Failure(Reason.FAILED), again=True)
    batch.on_success(Report([Word.DONE, failed, Word.DONE], 0.1))
    # None of the methods is there that would settle the other two.
    assert acknowledged == ["taken over"]
    assert consumer.done == [("done", "jobs.normal")]
    assert batch not in state.reserved_requests
    assert not {"done", "failed", "taken over"} & set(state.requests)


def test_a_message_that_runs_or_is_done_here_is_no_part_of_another_batch() -> None:
    gatherer, consumer = gathered(task(size=1))
    again = message(delivery_info={"consumer_tag": "tag", "redelivered": True})
    consumer.taken.append(again)
    assert gatherer.take(again)
    assert not consumer.submitted
    assert gatherer.take(message("2", delivery_info=again.delivery_info))
    assert sizes(consumer) == [1]


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": {"x-delivery-count": 1}},
        {"headers": {"rabbitry-attempt": 2}},
        {"headers": {"rabbitry-replays": 1}},
        {"headers": {"eta": "2030-01-01T00:00:00+00:00"}},
        {"headers": {"expires": "2030-01-01T00:00:00+00:00"}},
        {"headers": {"timelimit": [5, None]}},
        {"headers": {"timelimit": [None, 5]}},
        {"headers": {"id": 5}},
        {"headers": {"rabbitry-call": True}},
        {"properties": {"reply_to": "queue"}},
        {"content_type": "application/x-yaml"},
        {"errors": [ValueError()]},
    ],
    ids=str,
)
def test_what_failed_before_and_what_asks_for_more_runs_alone(changes) -> None:
    gatherer, consumer = gathered(task(size=1))
    assert not gatherer.take(message(**changes))
    assert not gatherer.take(message(job="test.unknown"))
    assert not consumer.submitted


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": {"timelimit": [None, None]}},
        {"headers": {"timelimit": [60, None]}},
        {"headers": {"timelimit": None, "eta": None, "expires": None}},
        {"headers": {"ignore_result": True}, "properties": {"reply_to": "queue"}},
        {"headers": {"x-delivery-count": 0, "rabbitry-attempt": 1}},
    ],
    ids=str,
)
def test_what_asks_for_nothing_more_runs_with_others(changes) -> None:
    item = item_of(message(**changes), time_limit_s=60)
    assert item is not None
    assert item.content_type == JSON
    assert item.call is None


def test_a_call_knows_where_its_reply_goes() -> None:
    headers = {"rabbitry-call": True, "rabbitry-published": 17, "rabbitry-deadline": 99}
    properties = {"reply_to": "queue", "correlation_id": "cid"}
    item = item_of(message(headers=headers, properties=properties), time_limit_s=None)
    assert item is not None
    assert (item.call, item.deadline_ms) == (("queue", "cid", 17), 99)


def test_a_batch_has_its_whole_wait_and_full_ones_no_timers_of_their_own() -> None:
    gatherer, consumer = gathered(task(size=2, wait_s=0.03), task("test.other", wait_s=0.01))
    for n in range(9):
        gatherer.take(message(str(n)))
    assert len(consumer.timer) == 1
    gatherer.take(message("other", "test.other"))
    assert len(consumer.timer) == 2
    turned_until(consumer, lambda: len(consumer.submitted) == 6)
    assert [batch.name for batch in consumer.submitted[4:]] == ["test.other", "test.job"]
    assert sizes(consumer) == [2, 2, 2, 2, 1, 1]
    batch = consumer.submitted[-1]
    assert time.monotonic() >= batch.due
    batch.execute_using_pool(consumer.pool)
    # What comes later waits as long.
    gatherer.take(message("later"))
    turned_until(consumer, lambda: len(consumer.submitted) == 7)
    assert time.monotonic() >= consumer.submitted[-1].due >= batch.due + 0.03


def test_a_batch_that_was_begun_under_an_older_timer_is_looked_at_again() -> None:
    gatherer, consumer = gathered(task(size=2, wait_s=0.05))
    for n in range(3):
        gatherer.take(message(str(n)))
    (first, open_) = consumer.submitted[0], gatherer._open["test.job"]
    assert open_.due > first.due
    turned_until(consumer, lambda: time.monotonic() >= first.due)
    turned_until(consumer, lambda: open_.submitted)
    assert time.monotonic() >= open_.due
    assert len(consumer.timer) == 0


def test_nothing_is_submitted_after_the_end() -> None:
    gatherer, consumer = gathered(task(wait_s=0.001))
    gatherer.take(message("1"))
    list(gatherer.close())
    turned_until(consumer, lambda: not len(consumer.timer))
    assert not consumer.submitted
