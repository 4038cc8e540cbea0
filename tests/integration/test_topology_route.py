"""Routing as RabbitMQ does it: the same bindings and messages, there and here."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from random import Random
from typing import Any

import amqp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.connection import connect
from broker.topology.matching import headers_match, topic_matches
from broker.topology.objects import EXCHANGE, QUEUE, Identity, Object, binding_identity, by_identity
from broker.topology.route import Router

QUEUES = ("q0", "q1", "q2", "q3")
VALUES = ("a", "1", 1, 2, 1.5, True, False, None)


@pytest.fixture
def channel(rabbitmq, vhost):
    connection = connect(rabbitmq.address(vhost))
    yield connection.default_channel
    connection.release()


def declare_queue(channel: Any, name: str = "") -> str:
    kind = {"x-queue-type": "classic"}
    return channel.queue_declare(name, exclusive=True, auto_delete=False, arguments=kind).queue


def publish(channel: Any, body: Any, exchange: str, key: str = "", headers: Any = None) -> None:
    message = amqp.Message(json.dumps(body), application_headers=headers or {})
    channel.basic_publish(message, exchange, key)


def taken_from(channel: Any, queue: str) -> list[Any]:
    # On one channel RabbitMQ routes in order: what was published is there.
    got = iter(lambda: channel.basic_get(queue, no_ack=True), None)
    return [json.loads(each.body) for each in got]


def up_to(count: int, words: Iterable[str]) -> list[str]:
    """Return every text of up to so many words; the empty text is one without words."""
    listed = tuple(words)
    lengths = range(1, count + 1)
    found = (
        ".".join(each) for length in lengths for each in itertools.product(listed, repeat=length)
    )
    return sorted({"", *found})


def test_topic_patterns_match_as_in_rabbitmq(channel: Any) -> None:
    # RabbitMQ refuses a pattern with three of them.
    patterns = [each for each in up_to(3, ("a", "*", "#", "")) if each.split(".").count("#") < 3]
    keys = up_to(3, ("a", "b", ""))
    queue = declare_queue(channel)
    for index, pattern in enumerate(patterns):
        exchange = f"x{index}"
        channel.exchange_declare(exchange, "topic", auto_delete=False)
        channel.queue_bind(queue, exchange, pattern)
        for key in keys:
            publish(channel, [pattern, key], exchange, key)
    there = {tuple(each) for each in taken_from(channel, queue)}
    here = {(pattern, key) for pattern in patterns for key in keys if topic_matches(pattern, key)}
    assert here == there


def test_headers_match_as_in_rabbitmq(channel: Any) -> None:
    names = ("h", "x-h")
    sets: list[dict[str, Any]] = [{}]
    sets += [{name: value} for name in names for value in VALUES]
    sets += [{"h": one, "x-h": other} for one in ("a", 1, None) for other in ("a", 1)]
    matches: list[dict[str, Any]] = [{"x-match": how} for how in ("all", "any")]
    matches += [{}, {"x-match": "all-with-x"}, {"x-match": "any-with-x"}]
    bindings = [each | how for each in sets for how in matches]
    queue = declare_queue(channel)
    for index, arguments in enumerate(bindings):
        exchange = f"x{index}"
        channel.exchange_declare(exchange, "headers", auto_delete=False)
        channel.queue_bind(queue, exchange, arguments=arguments)
        for number, headers in enumerate(sets):
            publish(channel, [index, number], exchange, headers=headers)
    there = {tuple(each) for each in taken_from(channel, queue)}
    here = {
        (index, number)
        for index, arguments in enumerate(bindings)
        for number, headers in enumerate(sets)
        if headers_match(arguments, headers)
    }
    assert here == there


# -- exchanges bound to one another, in circles, with alternates ----------------------


def case_of(random: Random) -> dict[str, Any]:
    """Return exchanges, what is bound to them, and messages."""
    names = [f"x{index}" for index in range(random.randint(2, 5))]
    types = ("topic", "direct", "fanout", "headers")
    words = ("a", "b", "*", "#")
    return {
        "exchanges": {
            name: {
                "type": random.choice(types),
                "alternate": random.choice([None, "missing", *names]),
            }
            for name in names
        },
        "bindings": [
            {
                "source": random.choice(names),
                "kind": kind,
                "destination": random.choice(QUEUES if kind == "queue" else names),
                "routing_key": ".".join(random.choices(words, k=random.randint(1, 2))),
                "arguments": {
                    "h": random.choice(VALUES),
                    "x-match": random.choice(["all", "any"]),
                },
            }
            for kind in random.choices(("queue", "exchange"), k=random.randint(3, 8))
        ],
        "messages": [
            (name, key, {"h": random.choice(VALUES)} | copies)
            for name in names
            for key in ("a", "b", "a.b")
            for copies in ({}, {"CC": ["b.a"], "BCC": ["c"]})
        ],
    }


def test_messages_go_where_rabbitmq_sends_them(channel: Any) -> None:
    number = itertools.count()
    for queue in QUEUES:
        declare_queue(channel, queue)

    @settings(
        max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(st.integers(0, 2**64))
    def check(seed: int) -> None:
        # Drawn by a generator of their own: hypothesis's cases repeat one another.
        case, prefix = case_of(Random(seed)), f"{next(number)}."
        assert _by_us(case, prefix) == _by_rabbitmq(channel, case, prefix)

    check()


def _by_us(case: dict[str, Any], prefix: str) -> list[list[str]]:
    objects = [
        Object(
            Identity(EXCHANGE, (prefix + name,)),
            {"type": each["type"], "internal": False, "arguments": _arguments(each, prefix)},
        )
        for name, each in case["exchanges"].items()
    ]
    objects += [
        Object(Identity(QUEUE, (name,)), {"type": "classic", "arguments": {}}) for name in QUEUES
    ]
    objects += [
        Object(
            binding_identity(
                source=prefix + each["source"],
                kind=each["kind"],
                destination=_end(each, prefix),
                routing_key=each["routing_key"],
                arguments=each["arguments"],
            ),
            {},
        )
        for each in case["bindings"]
    ]
    router = Router(by_identity(objects))
    return [
        list(router.route(prefix + exchange, key, sent).queues)
        for exchange, key, sent in case["messages"]
    ]


def _by_rabbitmq(channel: Any, case: dict[str, Any], prefix: str) -> list[list[str]]:
    for name, each in case["exchanges"].items():
        channel.exchange_declare(
            prefix + name, each["type"], auto_delete=False, arguments=_arguments(each, prefix)
        )
    for each in case["bindings"]:
        bind = channel.queue_bind if each["kind"] == "queue" else channel.exchange_bind
        bind(
            _end(each, prefix),
            prefix + each["source"],
            each["routing_key"],
            arguments=each["arguments"],
        )
    for index, (exchange, key, sent) in enumerate(case["messages"]):
        publish(channel, index, prefix + exchange, key, sent)
    reached: list[list[str]] = [[] for _ in case["messages"]]
    for queue in QUEUES:
        for index in taken_from(channel, queue):
            reached[index].append(queue)
    for name in case["exchanges"]:
        channel.exchange_delete(prefix + name)
    return reached


def _end(binding: dict[str, Any], prefix: str) -> str:
    return binding["destination"] if binding["kind"] == "queue" else prefix + binding["destination"]


def _arguments(exchange: dict[str, Any], prefix: str) -> dict[str, Any]:
    alternate = exchange["alternate"]
    return {} if alternate is None else {"alternate-exchange": prefix + alternate}
