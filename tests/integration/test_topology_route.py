"""Routing as RabbitMQ does it: the same bindings and messages, there and here."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterable
from random import Random
from typing import Any
from xml.etree import ElementTree

import amqp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.connection import connect
from broker.management import Management
from broker.topology.effective import Policies, merged
from broker.topology.explain import explain
from broker.topology.matching import headers_match, topic_matches
from broker.topology.objects import EXCHANGE, QUEUE, Identity, Object, binding_identity, by_identity
from broker.topology.observe import observe
from broker.topology.route import Router

FILE = """\
version: 1
name: shop
exchanges: {shop: {type: topic}}
queues:
  orders: {max_length: 10, bindings: [{exchange: shop, routing_key: new}]}
"""
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


# -- policies in force ----------------------------------------------------------------

POLICY_KEYS = {
    "max-length": (5, 50),
    "message-ttl": (1000, 2000),
    "expires": (60_000, 70_000),
    "delivery-limit": (-1, 3, 30),
    "overflow": ("drop-head", "reject-publish"),
    "dead-letter-exchange": ("amq.fanout",),
    "dead-letter-strategy": ("at-most-once",),
    "max-age": ("1D",),
    "max-length-bytes": (10_000, 20_000),
    "queue-leader-locator": ("balanced",),
}
OPERATOR_KEYS = ("max-length", "message-ttl", "expires", "delivery-limit", "max-length-bytes")
APPLY_TO = ("all", "queues", "classic_queues", "quorum_queues", "streams", "exchanges")


def test_policies_are_in_force_as_rabbitmq_says(rabbitmq: Any, vhost: str) -> None:
    random = Random(20)
    with Management(rabbitmq.address(vhost)) as management:
        definitions = {
            "queues": [
                {
                    "name": f"{type_}.{name}",
                    "durable": True,
                    "auto_delete": False,
                    "arguments": {"x-queue-type": type_},
                }
                for type_ in ("classic", "quorum", "stream")
                for name in ("a", "b", "ab", "c")
            ]
        }
        management.post("definitions", vhost, body=definitions)
        for number in range(24):
            keys = random.sample(sorted(POLICY_KEYS), random.randint(1, 3))
            body = {
                "pattern": random.choice(["a", "b$", "^quorum", "c$", "^classic\\.(a|c)$", ".*"]),
                # Each of its own: RabbitMQ does not define what a tie comes to.
                "priority": number,
                "apply-to": random.choice(APPLY_TO),
                "definition": {key: random.choice(POLICY_KEYS[key]) for key in keys},
            }
            kind = "operator-policies" if set(keys) <= set(OPERATOR_KEYS) else "policies"
            if kind == "operator-policies" and body["apply-to"] in ("all", "exchanges"):
                body["apply-to"] = "queues"
            management.put(kind, vhost, f"p{number}", body=body)
            there = observe(management, vhost)
            policies = Policies(there.objects)
            for queue, effective in there.effective.items():
                match = policies.of(queue, queue.partition(".")[0])
                assert merged(match) == effective, (queue, body)
                (explained,) = explain(there.objects, queue, effective=there.effective)
                assert explained.differs == ()


def test_the_commands_look_at_the_file_or_at_rabbitmq(rabbitry: Any, tmp_path: Any) -> None:
    file = tmp_path / "topology.yaml"
    file.write_text(FILE)
    options = ("--topology", file)
    found = rabbitry("topology", "route", "shop", "new", *options)
    assert "queue 'orders' (quorum)" in found.stdout
    assert rabbitry("topology", "route", "shop", "old", *options).returncode == 5
    empty = rabbitry("topology", "route", "shop", "new", "--live", *options)
    assert "there is no exchange 'shop'" in empty.stdout
    assert empty.returncode == 5
    planned = rabbitry("topology", "diagram", "--plan", *options).stdout
    assert ":::create" in planned
    assert rabbitry("topology", "apply", "--yes", *options).returncode == 0
    live = rabbitry("topology", "route", "shop", "new", "--live", "--json", *options)
    offline = rabbitry("topology", "route", "shop", "new", "--json", *options)
    assert json.loads(live.stdout) == json.loads(offline.stdout)
    explained = rabbitry("topology", "explain", "orders", "--live", *options)
    assert explained.returncode == 0, explained.stderr
    assert "10  by policy 'shop.generated.quorum_queues." in explained.stdout
    assert f"{file}:5:12" in explained.stdout
    unknown = rabbitry("topology", "explain", "order", *options)
    assert unknown.returncode == 2
    assert "is named 'order' (did you mean 'orders'?)" in unknown.stderr
    assert ":::create" not in rabbitry("topology", "diagram", "--plan", *options).stdout


def test_warnings_fail_where_they_are_to(rabbitry: Any, tmp_path: Any) -> None:
    file = tmp_path / "topology.yaml"
    file.write_text("version: 1\nname: shop\nexchanges: {shop: {type: topic}}\n")
    found = rabbitry("topology", "lint", "--topology", file)
    assert (found.returncode, found.stdout.split(":")[:3]) == (0, [str(file), "3", "13"])
    assert "warning swallows" in found.stdout
    assert rabbitry("topology", "lint", "--strict", "--topology", file).returncode == 1


def test_an_svg_is_drawn_by_graphviz_or_the_package_is_named(
    rabbitry: Any, env: dict[str, str], tmp_path: Any
) -> None:
    if shutil.which("dot"):
        drawn = rabbitry("topology", "diagram", "--format", "svg").stdout
        assert ElementTree.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"
    env["PATH"] = str(tmp_path)
    without = rabbitry("topology", "diagram", "--format", "svg")
    assert without.returncode == 1
    assert "install the package graphviz" in without.stderr
