"""What a topology comes to on RabbitMQ."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.topology import Topology
from broker.topology.compile import compile_topology
from broker.topology.objects import POLICY, QUEUE, Identity
from broker.topology.policies import PATTERN_LIMIT_BYTES, escape, owner_of, pattern, split
from broker.topology.settings import SETTINGS
from tests.unit.topology.samples import names, topologies, topology

BAND = {
    "retry": {"delay": "1s", "max_delay": "1m", "limit": 5},
    "dead_letter": {"exchange": "dead"},
    "max_length": 10,
    "consumer_timeout": "2h",
}
EXCHANGES = {"dead": {"type": "topic"}}


def policies(found: Topology) -> dict[str, dict[str, Any]]:
    return {
        identity.name[0]: dict(each.attributes)
        for identity, each in compile_topology(found).objects.items()
        if identity.kind == POLICY
    }


def test_one_policy_for_each_distinct_set_of_settings() -> None:
    found = policies(
        topology(
            exchanges=EXCHANGES,
            queues={"jobs.high": BAND, "jobs.low": BAND, "other": {"max_length": 1}, "bare": {}},
        )
    )
    assert {each["pattern"] for each in found.values()} == {
        r"^(jobs\.high|jobs\.low)$",
        "^(other)$",
    }


def test_operation_becomes_policy_keys_in_milliseconds() -> None:
    (policy,) = policies(topology(exchanges=EXCHANGES, queues={"q": BAND})).values()
    assert policy["apply-to"] == "quorum_queues"
    assert policy["definition"] == {
        "consumer-timeout": 7_200_000,
        "dead-letter-exchange": "dead",
        "dead-letter-strategy": "at-least-once",
        "delayed-retry-max": 60_000,
        "delayed-retry-min": 1000,
        "delayed-retry-type": "failed",
        "delivery-limit": 5,
        "max-length": 10,
        "overflow": "reject-publish",
    }


def test_at_most_once_is_a_choice_that_sets_no_overflow() -> None:
    letter = {"exchange": "dead", "strategy": "at-most-once"}
    queue = {"dead_letter": letter, "overflow": "drop-head"}
    (policy,) = policies(topology(exchanges=EXCHANGES, queues={"q": queue})).values()
    assert policy["definition"]["dead-letter-strategy"] == "at-most-once"
    assert policy["definition"]["overflow"] == "drop-head"


def test_classic_queues_get_no_key_that_would_keep_the_policy_from_applying() -> None:
    queue = {"type": "classic", "dead_letter": {"exchange": "dead", "routing_key": "k"}}
    (policy,) = policies(topology(exchanges=EXCHANGES, queues={"q": queue})).values()
    assert policy["apply-to"] == "classic_queues"
    assert policy["definition"] == {
        "dead-letter-exchange": "dead",
        "dead-letter-routing-key": "k",
    }


def test_structure_becomes_arguments() -> None:
    queue = {"single_active_consumer": True, "arguments": {"x-other": 3}}
    found = compile_topology(topology(queues={"q": queue})).objects[Identity(QUEUE, ("q",))]
    assert found.attributes["arguments"] == {"x-single-active-consumer": True, "x-other": 3}
    assert found.attributes["type"] == "quorum"


def test_an_alternate_exchange_is_a_policy_that_can_change() -> None:
    exchanges = {"a": {"type": "topic", "alternate_exchange": "b"}, "b": {"type": "fanout"}}
    (policy,) = policies(topology(exchanges=exchanges)).values()
    assert policy["apply-to"] == "exchanges"
    assert policy["pattern"] == "^(a)$"
    assert policy["definition"] == {"alternate-exchange": "b"}


def test_a_stream_keeps_its_age_in_its_own_units() -> None:
    streams = {
        name: {"type": "stream", "max_age": age}
        for name, age in {"a": "7d", "b": "90m", "c": "61s", "d": "2h"}.items()
    }
    ages = {each["definition"]["max-age"] for each in policies(topology(queues=streams)).values()}
    assert ages == {"7D", "90m", "61s", "2h"}


def test_policy_names_do_not_change_with_unrelated_queues() -> None:
    before = policies(topology(exchanges=EXCHANGES, queues={"q": BAND}))
    after = policies(topology(exchanges=EXCHANGES, queues={"q": BAND, "r": {"max_length": 1}}))
    assert before.items() <= after.items()
    assert {owner_of(name) for name in after} == {"t"}


def test_the_virtual_host_of_a_url_takes_the_place_of_the_files() -> None:
    desired = compile_topology(topology(vhost={"name": "file"}), vhost="url")
    assert desired.vhost == "url"
    assert Identity("vhost", ("url",)) in desired.objects


def test_every_setting_is_a_key_of_the_model() -> None:
    from broker.topology.model import Queue

    assert SETTINGS.keys() <= Queue.model_fields.keys()


@given(st.lists(names, min_size=1, max_size=8, unique=True), st.lists(names, max_size=8))
def test_a_pattern_matches_its_names_and_no_other(own: list[str], other: list[str]) -> None:
    expression = re.compile(pattern(own))
    assert all(expression.search(name) for name in own)
    assert not any(expression.search(name) for name in other if name not in own)


@given(names)
def test_an_escaped_name_matches_itself(name: str) -> None:
    assert re.fullmatch(escape(name), name)


@given(st.lists(names, min_size=1, max_size=150, unique=True))
def test_a_long_list_is_cut_into_patterns_that_rabbitmq_takes(listed: list[str]) -> None:
    listed.sort()
    parts = list(split(listed))
    assert [name for part in parts for name in part] == listed
    assert all(len(pattern(part).encode()) <= PATTERN_LIMIT_BYTES for part in parts)


def test_one_more_queue_among_thousands_changes_two_policies_at_most() -> None:
    queues = {f"application.work.{index:04}": {"max_length": 5} for index in range(3000)}
    before = policies(topology(queues=queues))
    after = policies(topology(queues=queues | {"application.work.1500.new": {"max_length": 5}}))
    assert len(before) > 50
    patterns = {name: each["pattern"] for name, each in before.items()}
    changed = {name: each["pattern"] for name, each in after.items()}.items() ^ patterns.items()
    assert len({name for name, _ in changed}) <= 2


@given(topologies())
def test_compiling_twice_gives_the_same(found: Topology) -> None:
    assert compile_topology(found) == compile_topology(found)
