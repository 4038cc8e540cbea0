"""A refusal of what was sent twice does not say what became of the first sending."""

from __future__ import annotations

import pytest

from broker.errors import OutcomeUnknown, Rejected, Unroutable
from broker.flight import Flight
from broker.receipt import Receipt

ONE = [(True, 1, False)]
NO_EXCHANGE = "NOT_FOUND - no exchange 'jobs' in vhost '/'"


def receipt(name: str, exchange: str = "jobs") -> Receipt:
    return Receipt(None, name, b"frames", exchange=exchange, routing_key="k", deadline=0.0)


def written(flight: Flight, *receipts: Receipt) -> None:
    flight.begin_channel()
    flight.waiting.extend(receipts)
    flight.next_buffers(4096)


def written_again(flight: Flight) -> None:
    """Lose the connection before any confirm, and send everything on the next one."""
    flight.keep_unconfirmed()
    written(flight)


def test_what_was_sent_once_is_rejected() -> None:
    flight = Flight()
    message = receipt("a")
    written(flight, message)
    routed, ((ended, outcome),) = flight.settle([(False, 1, False)])
    assert (routed, ended) == ([], message)
    assert isinstance(outcome, Rejected)


def test_what_is_rejected_the_second_time_may_have_got_in_the_first_time() -> None:
    flight = Flight(lambda exchange, key: "it is full")
    written(flight, receipt("a"))
    written_again(flight)
    _, ((_, outcome),) = flight.settle([(False, 1, False)])
    assert isinstance(outcome, OutcomeUnknown)
    assert outcome.sent
    assert isinstance(outcome.__cause__, Rejected)
    assert "it is full" in outcome.reason


def test_what_was_under_way_when_an_exchange_went_away_may_have_got_in() -> None:
    flight = Flight()
    written(flight, receipt("before"))
    assert len(flight.settle(ONE)[0]) == 1
    written(flight, receipt("a"), receipt("b"))
    assert flight.closed(404, NO_EXCHANGE) == []
    flight.waiting.append(later := receipt("later"))
    written_again(flight)
    outcomes = {each.message_id: outcome for each, outcome in flight.closed(404, NO_EXCHANGE)}
    assert outcomes.keys() == {"a", "b", "later"}
    assert isinstance(outcomes["a"], OutcomeUnknown)
    assert isinstance(outcomes["b"].__cause__, Unroutable)
    # It was written when the exchange was known to be gone.
    assert isinstance(outcomes["later"], Unroutable)
    assert not later.redelivered


def test_an_exchange_that_never_was_has_taken_nothing() -> None:
    flight = Flight()
    written(flight, receipt("a"), receipt("other", "other"), receipt("b"))
    outcomes = {each.message_id: type(outcome) for each, outcome in flight.closed(404, NO_EXCHANGE)}
    assert outcomes == {"a": Unroutable, "b": Unroutable}


@pytest.mark.parametrize("exchange", ["other", "third"])
def test_what_stood_behind_the_message_at_fault_was_dropped(exchange: str) -> None:
    flight = Flight()
    before, culprit, behind = receipt("before", exchange), receipt("a"), receipt("behind", exchange)
    written(flight, before, culprit, behind)
    ((ended, _),) = flight.closed(404, NO_EXCHANGE)
    assert ended is culprit
    ended._outcome = Unroutable(
        message_id="a", exchange="jobs", routing_key="k", reply_code=404, reply_text=""
    )
    written_again(flight)
    assert (before.redelivered, behind.redelivered) == (True, False)
