"""What failed goes to the delay ladder with the number of its next attempt; pure but for a fake."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.app.task import Context

from broker import case_file
from broker.connection import Address
from broker.delays import is_of_ladder, without_traces
from broker.errors import InvalidDelay
from broker.message import ATTEMPT, DELIVERY_COUNT, ORIGIN, Message, attempt_of
from broker.topology import Topology
from consumers.current import job_of
from consumers.delays import FROM, Waiting
from consumers.failure.rules import Rules

TOPOLOGY = Topology.model_validate(
    {
        "version": 1,
        "name": "shop",
        "broker": {"requires": "4.0"},
        "queues": {
            "orders": {"type": "quorum", "retry": {"delay": "2s", "max_delay": "5s", "limit": 4}},
            "plain": {"type": "quorum"},
            "old": {"type": "classic"},
        },
    }
)


class Channel:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.sent: list[tuple[Message, str, str]] = []

    def publish(self, message: Message, *, exchange: str, routing_key: str) -> None:
        self.sent.append((message, exchange, routing_key))


@pytest.fixture
def channel() -> Channel:
    return Channel()


@pytest.fixture
def waiting(channel: Channel) -> Waiting:
    waiting = Waiting(TOPOLOGY, Address.parse("amqp://127.0.0.1/"))
    waiting.__dict__["_channel"] = channel
    return waiting


def delivered(exchange: str, **headers: Any) -> Any:
    """Return a message as kombu hands it over."""
    return SimpleNamespace(
        body="[[], {}, {}]",
        content_type="application/json",
        content_encoding="utf-8",
        headers={"id": "one", "task": "place", FROM: "orders", **headers},
        properties={"message_id": "one", "priority": 7, "expiration": "100", "reply_to": "them"},
        delivery_info={"exchange": exchange, "routing_key": "eu.orders"},
        errors=[],
    )


@pytest.mark.parametrize(
    ("headers", "attempt"),
    [
        ({}, 1),
        ({DELIVERY_COUNT: 2}, 3),
        ({ATTEMPT: 3}, 3),
        ({ATTEMPT: 3, DELIVERY_COUNT: 2}, 5),
        ({ATTEMPT: "3", DELIVERY_COUNT: None}, 1),
        ({ATTEMPT: -3, DELIVERY_COUNT: -1}, 1),
    ],
)
def test_an_attempt_is_what_the_message_says_and_rabbitmq_adds(
    headers: dict[str, Any], attempt: int
) -> None:
    assert attempt_of(headers) == attempt


def test_what_failed_is_published_to_its_first_rung_as_it_was_but_for_its_attempt(
    waiting: Waiting, channel: Channel
) -> None:
    first = delivered("jobs", **{DELIVERY_COUNT: 1})
    waiting.try_again(first, "orders", 4.0)
    ((sent, entry, key),) = channel.sent
    assert (entry, key) == ("shop.delays.4s", "eu.orders")
    assert sent.headers == {
        **{"id": "one", "task": "place", ATTEMPT: 3, ORIGIN: "jobs"},
        **{"rabbitry-wait-1s": False, "rabbitry-wait-2s": False, "rabbitry-wait-4s": True},
        "rabbitry-to:orders": True,
    }
    assert sent.body.content == b"[[], {}, {}]"
    # A time to live would end the wait.
    assert sent.properties == {
        **{"message_id": "one", "priority": 7, "reply_to": "them"},
        "delivery_mode": 2,
    }


def test_where_it_was_published_to_stays_known_over_many_passes(
    waiting: Waiting, channel: Channel
) -> None:
    # It comes back by the exchange of the rung below the one that held it.
    waiting.try_again(delivered("shop.delays.1s", **{ATTEMPT: 2, ORIGIN: "jobs"}), "orders", 1.0)
    # One that was delayed when it was published never went through another.
    waiting.try_again(delivered("shop.delays.due"), "orders", 0.1)
    (again, _, _), (delayed, entry, _) = channel.sent
    assert (again.headers[ATTEMPT], again.headers[ORIGIN]) == (3, "jobs")
    assert (delayed.headers[ATTEMPT], entry) == (2, "shop.delays.1s")
    assert ORIGIN not in delayed.headers
    assert is_of_ladder("shop", "shop.delays.8s")
    assert not is_of_ladder("shop", "jobs")


def test_a_queue_without_a_delay_has_no_ladder(waiting: Waiting, channel: Channel) -> None:
    with pytest.raises(InvalidDelay, match="queue 'plain'"):
        waiting.try_again(delivered("jobs"), "plain", 1.0)
    assert channel.sent == []
    rules = Rules(TOPOLOGY)
    waits = rules.of("orders").waits
    assert waits is not None
    assert [waits.wait_ms(attempt) for attempt in (1, 2, 3, 4)] == [2000, 4000, 5000, 5000]
    assert rules.of("orders").limit == 4
    assert rules.of("plain").waits is rules.of("old").waits is None


def test_a_dead_letter_of_rabbitmqs_counts_all_attempts_and_goes_back_as_new() -> None:
    headers = {
        **{"id": "one", ATTEMPT: 3, ORIGIN: "jobs", DELIVERY_COUNT: 2},
        "x-death": [
            {
                **{"reason": "delivery_limit", "queue": "orders", "exchange": "shop.delays.due"},
                "routing-keys": ["eu.orders"],
            }
        ],
    }
    case = case_file.of(headers)
    assert case is not None
    assert (case.attempt, case.exchange, case.routing_key) == (4, "jobs", "eu.orders")
    assert case_file.without_case(headers) == {"id": "one"}
    assert without_traces({ATTEMPT: 3, ORIGIN: "jobs", "id": "one"}) == {"id": "one"}


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({}, (1, False)),
        ({"delivery_info": {"redelivered": True}}, (1, True)),
        ({ATTEMPT: 2}, (2, True)),
    ],
)
def test_a_task_is_told_of_the_attempts_before(
    headers: dict[str, Any], told: tuple[int, bool]
) -> None:
    current = job_of("place", Context({"id": "one", **headers}))
    assert (current.attempt, current.redelivered) == told
