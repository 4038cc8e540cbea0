"""Who is blamed for the closing of a channel."""

from __future__ import annotations

from typing import Any

from broker.body import Body
from broker.culprit import Strikes, refusal_of
from broker.errors import MessageTooLarge, Rejected, Unroutable
from broker.frames import content_of
from broker.message import Message
from broker.receipt import Receipt

GONE = "NOT_FOUND - no exchange 'gone' in vhost '/'"
TOO_LARGE = "PRECONDITION_FAILED - message size 30 is larger than configured max size 20"


def receipt(exchange: str, *, key: str = "key", size: int = 3, again: bool = False) -> Receipt:
    message = Message("one", Body(b"x" * size, "x", "binary"), {}, {"message_id": "one"})
    content = content_of(message, exchange=exchange, routing_key=key)
    nobody: Any = None
    made = Receipt(nobody, "one", content, exchange=exchange, routing_key=key, deadline=0.0)
    made.sent, made.redelivered = True, again
    return made


def test_the_only_message_that_fits_is_the_one() -> None:
    pending = [receipt("jobs"), receipt("gone"), receipt("jobs")]
    assert Strikes().culprits(pending, GONE) == [pending[1]]


def test_of_several_none_is_blamed_before_it_has_met_the_same_end_twice() -> None:
    strikes = Strikes()
    pending = [receipt("gone"), receipt("jobs"), receipt("gone")]
    assert strikes.culprits(pending, GONE, took={"gone"}) == []
    for each in pending:
        each.redelivered = True
    fresh = receipt("gone")
    assert strikes.culprits([*pending, fresh], GONE, took={"gone"}) == [pending[0], pending[2]]


def test_an_exchange_that_took_nothing_is_the_fault_of_all_that_go_there() -> None:
    pending = [receipt("gone"), receipt("jobs"), receipt("gone")]
    assert Strikes().culprits(pending, GONE, took={"jobs"}) == [pending[0], pending[2]]


def test_a_message_too_large_is_known_by_its_size() -> None:
    pending = [receipt("jobs"), receipt("jobs", size=30), receipt("jobs", size=30)]
    assert Strikes().culprits(pending, TOO_LARGE) == [pending[1]]


def test_a_refused_topic_is_known_by_its_key() -> None:
    text = "ACCESS_REFUSED - write access to topic 'b' in exchange 'jobs' in vhost '/' refused"
    pending = [receipt("jobs", key="a"), receipt("jobs", key="b"), receipt("other", key="b")]
    assert Strikes().culprits(pending, text) == [pending[1]]


def test_where_nothing_tells_the_oldest_ends_once_it_was_tried_again() -> None:
    strikes = Strikes()
    text = "INTERNAL_ERROR"
    pending = [receipt("jobs"), receipt("jobs")]
    assert strikes.culprits(pending, text) == []
    for each in pending:
        each.redelivered = True
    assert strikes.culprits(pending, text) == pending[:1]
    assert strikes.culprits(pending[1:], text) == pending[1:]


def test_the_outcome_says_what_rabbitmq_said() -> None:
    gone = refusal_of(receipt("gone"), 404, GONE)
    assert isinstance(gone, Unroutable)
    assert (gone.reply_code, gone.reply_text) == (404, GONE)
    large = refusal_of(receipt("jobs", size=30), 406, TOO_LARGE)
    assert isinstance(large, Rejected)
    assert isinstance(large.__cause__, MessageTooLarge)
    assert (large.__cause__.size_bytes, large.__cause__.limit_bytes) == (30, 20)
    assert "406" in large.reason
