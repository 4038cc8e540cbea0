"""The consumer time-out of a queue follows from the time limits of what it holds."""

from __future__ import annotations

from typing import Any

import pytest

from broker.topology import Topology
from broker.topology.compile import compile_topology, derived_timeouts
from broker.topology.explain import Explanation, explain
from broker.topology.lint import check
from broker.topology.load import read
from broker.topology.objects import POLICY
from broker.topology.route import Router
from broker.topology.timeouts import Needs, needed_s
from tests.unit.topology.samples import topology

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
LONG = {"exchange": "amq.topic", "routing_key": "long", "time_limit": "2h"}
SHORT = {"exchange": "amq.topic", "routing_key": "short"}


def queue(key: str, **settings: Any) -> dict[str, Any]:
    return {"bindings": [{"exchange": "amq.topic", "routing_key": key}], **settings}


def timeouts(found: Topology) -> dict[str, int]:
    """Return the time-outs that generated policies give, by queue."""
    return {
        name: each.attributes["definition"]["consumer-timeout"]
        for identity, each in compile_topology(found).objects.items()
        if identity.kind == POLICY and "consumer-timeout" in each.attributes["definition"]
        for name in each.covers
    }


def test_a_margin_is_left_after_each_limit_and_jobs_before_it_have_their_time() -> None:
    assert needed_s(600) == 660
    assert needed_s(600, rounds=3) == 3 * 600 + 60
    assert needed_s(600, rounds=3, longest_s=1000) == 600 + 2 * 1000 + 60
    assert needed_s(600, rounds=3, longest_s=10) == 3 * 600 + 60


def test_a_queue_that_states_no_time_out_gets_what_its_longest_job_needs() -> None:
    found = topology(
        queues={"long": queue("long"), "short": queue("short")},
        jobs={"long": LONG, "longer": {**LONG, "time_limit": "3h"}, "short": SHORT},
    )
    assert timeouts(found) == {"long": 3 * HOUR_MS + MINUTE_MS}


def test_rabbitmq_s_own_is_left_where_it_is_long_enough() -> None:
    brief = {**SHORT, "time_limit": "29m"}
    assert timeouts(topology(queues={"q": queue("short")}, jobs={"brief": brief})) == {}
    tight = {**SHORT, "time_limit": "29m1s"}
    found = topology(queues={"q": queue("short")}, jobs={"tight": tight})
    assert timeouts(found) == {"q": 30 * MINUTE_MS + 1000}


def test_a_worker_s_limit_and_what_it_holds_ahead_count() -> None:
    queues = {"long": queue("long"), "short": queue("short")}
    jobs = {"long": LONG, "short": SHORT}
    worker = {"queues": ["long", "short"], "time_limit": "1h", "concurrency": 2}
    found = topology(queues=queues, jobs=jobs, workers={"w": worker})
    assert timeouts(found) == {"long": 2 * HOUR_MS + MINUTE_MS, "short": HOUR_MS + MINUTE_MS}
    # Three rounds: the last job held waits for two that may be long ones.
    found = topology(queues=queues, jobs=jobs, workers={"w": {**worker, "prefetch": 5}})
    assert timeouts(found) == {
        "long": 3 * 2 * HOUR_MS + MINUTE_MS,
        "short": 5 * HOUR_MS + MINUTE_MS,
    }


def test_the_way_through_alternate_exchanges_and_bindings_is_followed() -> None:
    found = topology(
        exchanges={
            "in": {"type": "topic", "alternate_exchange": "rest"},
            "rest": {"type": "fanout"},
            "further": {"type": "fanout", "bindings": [{"exchange": "rest"}]},
        },
        queues={"q": {"bindings": [{"exchange": "further"}]}, "other": {}},
        jobs={"long": {**LONG, "exchange": "in"}},
    )
    assert timeouts(found) == {"q": 2 * HOUR_MS + MINUTE_MS}


@pytest.mark.parametrize(
    "settings",
    [
        {"consumer_timeout": "5h"},
        {"arguments": {"x-consumer-timeout": 5 * HOUR_MS}},
        {"type": "classic"},
    ],
)
def test_nothing_is_derived_where_it_is_stated_or_means_nothing(settings: dict[str, Any]) -> None:
    found = topology(queues={"q": queue("long", **settings)}, jobs={"long": LONG})
    assert derived_timeouts(found) == {}


def test_a_policy_written_by_hand_is_not_hidden_by_a_derived_time_out() -> None:
    policies = {"ours": {"pattern": "^q$", "definition": {"consumer-timeout": 5 * HOUR_MS}}}
    found = topology(queues={"q": queue("long")}, jobs={"long": LONG}, policies=policies)
    assert timeouts(found) == {}
    assert check(found) == []
    policies = {"ours": {"pattern": "^q$", "definition": {"max-length": 5}}}
    found = topology(queues={"q": queue("long")}, jobs={"long": LONG}, policies=policies)
    assert [each.rule for each in check(found)] == ["time-limit"]


def test_queues_with_the_same_time_out_share_a_policy() -> None:
    queues = {name: queue("long", max_length=5) for name in ("a", "b")}
    found = compile_topology(topology(queues=queues, jobs={"long": LONG})).objects
    (policy,) = (each for identity, each in found.items() if identity.kind == POLICY)
    assert policy.attributes["definition"] == {
        "consumer-timeout": 2 * HOUR_MS + MINUTE_MS,
        "max-length": 5,
    }


@pytest.mark.parametrize(
    ("timeout", "limit", "worker", "words"),
    [
        ("2h", {"time_limit": "2h"}, {}, ("after 2h ", "2h1m ", "job 'j'")),
        ("2h", {"time_limit": "119m30s"}, {}, ("after 2h ", "2h30s ", "job 'j'")),
        ("1h", {}, {"time_limit": "1h"}, ("after 1h ", "1h1m ", "worker 'w'")),
        (
            "2h",
            {"time_limit": "1h"},
            {"concurrency": 2, "prefetch": 4},
            ("after 2h ", "2h1m ", "2 jobs one after the other"),
        ),
        ("2h", {"time_limit": "1h"}, {"concurrency": 2}, ()),
        ("2h1m", {"time_limit": "2h"}, {}, ()),
    ],
)
def test_lint_names_both_times_where_a_stated_time_out_is_too_short(
    timeout: str, limit: dict[str, str], worker: dict[str, Any], words: tuple[str, ...]
) -> None:
    found = check(
        topology(
            queues={"q": queue("short", consumer_timeout=timeout)},
            jobs={"j": {**SHORT, **limit}},
            workers={"w": {"queues": ["q"], **worker}},
        )
    )
    texts = [each.text for each in found if each.rule == "time-limit"]
    assert len(texts) == bool(words)
    assert all(word in texts[0] for word in words)


@pytest.mark.parametrize("pool", ["threads", "solo", "gevent"])
def test_lint_names_a_worker_whose_pool_cannot_keep_its_limit(pool: str) -> None:
    worker = {"queues": ["q"], "time_limit": "1m", "concurrency": 1, "pool": pool}
    found = check(topology(queues={"q": queue("short")}, workers={"w": worker}))
    assert [(each.rule, each.path) for each in found if "pool" in each.rule] == [
        ("time-limit-pool", ("workers", "w", "time_limit"))
    ]


def test_needs_name_where_the_limit_stands() -> None:
    found = topology(
        queues={"q": queue("#")},
        jobs={"long": LONG, "short": SHORT},
        workers={"w": {"queues": ["q"], "time_limit": "1h"}},
    )
    needs = Needs(found, Router.of(found))
    most = needs.most("q")
    assert most is not None
    assert most.path == ("jobs", "long", "time_limit")
    assert {need.path[0] for need in needs.of("q")} == {"jobs", "workers"}


FILE = """\
version: 1
name: shop
queues:
  orders: {bindings: [{exchange: amq.topic, routing_key: "orders.#"}]}
  stated: {bindings: [{exchange: amq.topic, routing_key: "orders.#"}], consumer_timeout: 5h}
jobs:
  pack:
    exchange: amq.topic
    routing_key: orders.pack
    time_limit: 2h
"""


def test_explain_leads_from_the_time_out_to_the_limit(tmp_path) -> None:
    path = tmp_path / "topology.yaml"
    path.write_text(FILE)
    found, _ = read(path)
    assert found is not None
    objects = compile_topology(found, secrets=False).objects

    def explained(name: str) -> Explanation:
        derived = derived_timeouts(found)
        return explain(objects, name, source=found.source, derived=derived)[0]

    (line,) = (each for each in explained("orders").lines if each.key == "consumer-timeout")
    assert (line.value, line.shown) == (2 * HOUR_MS + MINUTE_MS, "7260000 (2h1m)")
    assert line.place.endswith("topology.yaml:10:5")
    assert (
        "The consumer timeout follows from the time_limit of 2h of job 'pack', and 1m to end it."
        in explained("orders").words
    )
    (line,) = (each for each in explained("stated").lines if each.key == "consumer-timeout")
    assert line.place.endswith("topology.yaml:5:72")
    assert not any("follows" in words for words in explained("stated").words)
