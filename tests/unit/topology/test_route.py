"""Routing, redelivery, explanations and drawings of small topologies."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.topology import Topology
from broker.topology.compile import compile_topology
from broker.topology.diagram import dot, drawing, mermaid
from broker.topology.explain import explain
from broker.topology.lint import RULES, check
from broker.topology.objects import QUEUE, Identity
from broker.topology.retry import Schedule
from broker.topology.route import Router
from tests.unit.topology.samples import topology
from tests.unit.topology.strategies import whole_documents

SHOP = {
    "exchanges": {
        "orders": {"type": "topic", "alternate_exchange": "lost"},
        "lost": {"type": "fanout"},
        "dead": {"type": "direct"},
        "inner": {"type": "fanout", "internal": True, "bindings": [{"exchange": "orders"}]},
        "spread": {"type": "x-consistent-hash"},
    },
    "queues": {
        "new": {
            "bindings": [{"exchange": "orders", "routing_key": "new.*"}],
            "retry": {"delay": "1s", "max_delay": "2s", "limit": 3},
            "dead_letter": {"exchange": "dead", "routing_key": "k"},
            "max_length": 500,
        },
        "lost": {"type": "classic", "bindings": [{"exchange": "lost"}]},
        "dead": {
            "bindings": [{"exchange": "dead", "routing_key": "k"}],
            "message_ttl": "1h",
            "arguments": {"x-max-length": 7},
        },
        "some": {"bindings": [{"exchange": "spread", "routing_key": "1"}]},
    },
    "policies": {
        "lengths": {"pattern": "^some$", "definition": {"max-length": 100, "message-ttl": "1m"}},
        "loser": {"pattern": "^so", "priority": -1, "definition": {"max-length": 1}},
    },
    "operator_policies": {
        "most": {"pattern": "^(new|some)$", "definition": {"max-length": 50, "expires": "1d"}},
    },
}


@pytest.fixture
def objects():
    return compile_topology(topology(**SHOP)).objects


def test_a_message_goes_through_bindings_and_on_by_dead_lettering(objects) -> None:
    found = Router(objects).route("orders", "new.one")
    assert found.queues == ("new",)
    letter = found.landings[0].letter
    assert (letter.exchange, letter.routing_keys, letter.goes.queues) == ("dead", ("k",), ("dead",))
    assert found.landings[0].schedule == Schedule(1000, 2000, 3)
    assert letter.goes.landings[0].ttl_ms == 3_600_000


def test_what_no_binding_takes_goes_to_the_alternate_exchange_of_a_policy(objects) -> None:
    found = Router(objects).route("orders", "old")
    assert found.queues == ("lost",)
    assert [step.by for step in found.steps] == ["alternate exchange", "binding"]


def test_the_empty_key_binds_an_exchange_that_then_takes_it(objects) -> None:
    assert Router(objects).route("orders", "").unroutable


@pytest.mark.parametrize(
    ("exchange", "key", "words"),
    [
        ("inner", "k", "exchange 'inner' is internal"),
        ("missing", "k", "there is no exchange 'missing'"),
    ],
)
def test_what_rabbitmq_refuses_is_said(objects, exchange: str, key: str, words: str) -> None:
    found = Router(objects).route(exchange, key)
    assert found.unroutable
    assert words in found.problems[0]


def test_what_a_plugin_decides_is_not_known(objects) -> None:
    found = Router(objects).route("spread", "k")
    assert not found.unroutable
    assert found.document()["unknown"] == [
        "exchange 'spread' has the plugin's type x-consistent-hash: which of its bindings"
        " (to queue 'some') takes a message, only RabbitMQ can tell"
    ]


def test_the_default_exchange_goes_to_the_queue_of_the_key(objects) -> None:
    assert Router(objects).route("", "some").queues == ("some",)
    assert Router(objects).route("", "none").unroutable
    copied = Router(objects).route("", "some", {"CC": ["dead"], "BCC": ["new"]})
    assert copied.queues == ("dead", "new", "some")


def test_a_circle_of_dead_letters_ends() -> None:
    found = topology(
        exchanges={"dlx": {"type": "fanout"}},
        queues={"q": {"bindings": [{"exchange": "dlx"}], "dead_letter": {"exchange": "dlx"}}},
    )
    document = Router(compile_topology(found).objects).route("", "q").document()
    again = document["queues"][0]["dead_letter"]["goes"]["queues"][0]
    assert again["queue"] == "q"
    assert again["dead_letter"]["circle"] is True


# -- redelivery -----------------------------------------------------------------------


@given(st.integers(0, 5000), st.integers(1, 5000), st.integers(0, 60))
def test_the_waits_add_up(delay_ms: int, longest_ms: int, limit: int) -> None:
    schedule = Schedule(delay_ms, longest_ms if delay_ms else 0, limit)
    waits = [schedule.wait_ms(attempt) for attempt in range(1, limit + 1)]
    assert schedule.total_ms == sum(waits)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (Schedule(0, 0, 20), "is redelivered at once, 20 times"),
        (Schedule(0, 0, None), "is redelivered at once, without end"),
        (Schedule(1000, 1000, 0), "is not redelivered"),
        (
            Schedule(1000, 60_000, 20),
            "is redelivered after 1s, 2s, 3s, 4s, 5s, 6s … 20s (20 times, 3m30s together)",
        ),
        (
            Schedule(1000, 4000, None),
            "is redelivered after 1s, 2s, 3s, 4s, 4s, 4s … at most 4s (without end)",
        ),
    ],
)
def test_a_schedule_in_words(schedule: Schedule, words: str) -> None:
    assert str(schedule) == words


# -- explanations ---------------------------------------------------------------------


def lines_of(objects, name: str) -> dict[str, tuple[object, str, tuple[object, ...]]]:
    found = [each for each in explain(objects, name) if each.subject.startswith("queue")]
    return {line.key: (line.value, line.origin, line.gave_way) for line in found[0].lines}


def test_the_lower_of_policy_operator_policy_and_argument_holds(objects) -> None:
    some = lines_of(objects, "some")
    assert some["max-length"] == (50, "operator policy 'most'", (("policy 'lengths'", 100),))
    assert some["message-ttl"] == (60_000, "policy 'lengths'", ())
    assert some["expires"] == (86_400_000, "operator policy 'most'", ())
    assert lines_of(objects, "dead")["max-length"] == (7, "argument", ())
    value, origin, gave_way = lines_of(objects, "new")["max-length"]
    assert (value, origin) == (50, "operator policy 'most'")
    assert gave_way[0][1] == 500


def test_what_nothing_says_is_rabbitmqs_default(objects) -> None:
    assert lines_of(objects, "some")["delivery-limit"] == (20, "RabbitMQ's default", ())


def test_what_rabbitmq_says_otherwise_is_named(objects) -> None:
    there = {"some": {"max-length": 50, "message-ttl": 60_000}}
    (found,) = explain(objects, "some", effective=there)
    assert found.differs == (
        "expires: RabbitMQ says null, the policies come to 86400000; a policy may have just"
        " changed",
    )


def test_an_unknown_name_is_explained_by_nothing(objects) -> None:
    assert explain(objects, "nobody") == []


# -- drawings -------------------------------------------------------------------------


def test_a_drawing_depends_on_nothing_but_the_topology() -> None:
    backwards = {
        key: dict(reversed(value.items())) if isinstance(value, dict) else value
        for key, value in reversed(SHOP.items())
    }
    one, other = topology(**SHOP), topology(**backwards)
    assert mermaid(drawing(one, compile_topology(one).objects)) == mermaid(
        drawing(other, compile_topology(other).objects)
    )


def test_a_drawing_has_dashed_dead_letters_and_the_plans_colours(objects) -> None:
    found = drawing(None, objects, {Identity(QUEUE, ("new",)): "create"})
    text = mermaid(found)
    assert '-.->|"dead letter, key k"|' in text
    assert '[("new<br><i>quorum</i>")]:::create' in text
    assert 'label="new\\nquorum", shape=cylinder, height=0.75, color="#2e9e4f"' in dot(found)


@given(st.text(st.sampled_from('ab"<>&#;[](){}|\\`\n'), min_size=1).map(str.strip).filter(bool))
def test_no_name_breaks_a_drawing(name: str) -> None:
    from broker.topology.objects import Object, by_identity

    there = Object(Identity(QUEUE, (name,)), {"type": "quorum", "arguments": {}})
    found = drawing(None, by_identity([there]))
    line = mermaid(found).splitlines()[1]
    assert line.startswith('  n0[("')
    assert line.endswith('<br><i>quorum</i>")]')
    assert line.count('"') == 2
    assert dot(found).count("\n") == 6


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(whole_documents())
def test_every_topology_can_be_linted_routed_explained_and_drawn(document: dict[str, Any]) -> None:
    found = Topology.model_validate(document)
    objects = compile_topology(found, secrets=False).objects
    assert {each.rule for each in check(found)} <= set(RULES)
    assert mermaid(drawing(found, objects)) == mermaid(drawing(found, objects))
    router = Router(objects)
    for exchange in found.exchanges:
        assert router.route(exchange, "a.b").document()["exchange"] == exchange
    for name in (*found.exchanges, *found.queues):
        assert explain(objects, name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("jobs_high.eu-1", "jobs_high.eu-1"),
        ('a "b" [c]|#', "a #34;b#34; #91;c#93;#124;#35;"),
        ("1. first", "1#46; first"),
        ("- first", "#45; first"),
        ("_i_ a__b", "#95;i#95; a#95;#95;b"),
    ],
)
def test_mermaid_gets_signs_that_it_would_read_as_entities(name: str, text: str) -> None:
    found = topology(queues={name: {}})
    assert f'"{text}<br>' in mermaid(drawing(found, compile_topology(found).objects))


def test_graphviz_reads_no_entity_out_of_a_name() -> None:
    found = topology(queues={"a&lt;b": {}})
    assert 'label="a&amp;lt;b\\nquorum"' in dot(drawing(found, compile_topology(found).objects))
