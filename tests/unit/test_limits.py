"""A job ends before RabbitMQ takes its message back, whatever the file says."""

from __future__ import annotations

from textwrap import dedent

import pytest

from broker.topology import Topology
from consumers.failure.rules import Rules
from consumers.limits import Limits
from tests.provision import topology_of

FILE = """
version: 1
name: limits
vhost: {name: limits, default_queue_type: quorum}
exchanges: {jobs: {type: topic}, dead: {type: topic}}
queues:
  slow: {bindings: [{exchange: jobs, routing_key: "slow.#"}]}
  quick:
    bindings: [{exchange: jobs, routing_key: "quick.#"}]
    consumer_timeout: 10s
    retry: {delay: 1s, limit: 0}
    dead_letter: {exchange: dead}
  plain: {bindings: [{exchange: jobs, routing_key: "plain.#"}]}
  classic: {type: classic, bindings: [{exchange: jobs, routing_key: "classic.#"}]}
policies:
  ours: {pattern: "^plain$", apply_to: queues, definition: {dead-letter-exchange: dead}}
jobs:
  slow.long: {exchange: jobs, routing_key: slow.long, time_limit: 3570s}
  slow.free: {exchange: jobs, routing_key: slow.free}
  quick.free: {exchange: jobs, routing_key: quick.free}
  plain.free: {exchange: jobs, routing_key: plain.free}
  classic.free: {exchange: jobs, routing_key: classic.free}
"""


@pytest.fixture
def topology(tmp_path) -> Topology:
    return topology_of(tmp_path, dedent(FILE))[0]


def test_the_time_out_is_that_of_the_queue_or_longer_than_its_longest_job(topology) -> None:
    limits = Limits(topology, Rules(topology))
    assert limits.timeout_s("quick") == 10
    assert limits.timeout_s("plain") == 1800  # RabbitMQ's own
    assert limits.timeout_s("slow") == 3570 + 60  # the policy's, that follows from it
    assert limits.timeout_s("slow", rounds=3) == 3 * 3570 + 60
    # Two jobs of `slow` may run before one of `quick`.
    both = Limits(topology, Rules(topology), default_s=30)
    assert both.timeout_s("quick", queues=["quick", "slow"], rounds=3) == 30 + 2 * 3570 + 60
    assert limits.timeout_s("classic") is None


def test_a_job_without_a_limit_ends_before_the_time_out_of_each_queue(topology) -> None:
    limits = Limits(topology, Rules(topology))
    assert limits.limit_s("slow.long", ["slow"]) == 3570
    assert limits.limit_s("slow.free", ["slow"]) == 3570  # 60 s before 3,630
    assert limits.limit_s("plain.free", ["plain"]) == 1740
    assert limits.limit_s("quick.free", ["quick"]) == 8
    assert limits.limit_s("quick.free", ["quick", "slow"]) == 8
    assert limits.limit_s("quick.free", ["quick"], rounds=2) == 4
    assert limits.limit_s("classic.free", ["classic"]) is None


def test_a_worker_s_limit_is_for_jobs_that_state_none(topology) -> None:
    limits = Limits(topology, Rules(topology), default_s=3000)
    assert limits.limit_s("quick.free", ["quick"]) == 3000
    assert limits.timeout_s("quick") == 3060
    assert limits.limit_s("slow.long", ["slow"]) == 3570
    assert limits.stated_s("slow.long", ["quick"]) is None


def test_rules_are_those_in_force_policies_included(topology) -> None:
    rules = Rules(topology)
    assert (rules.of("quick").limit, rules.of("quick").exchange) == (0, "dead")
    assert (rules.of("plain").limit, rules.of("plain").exchange) == (20, "dead")
    assert rules.of("slow").exchange is None
    # RabbitMQ counts nothing there: whatever fails is over.
    assert rules.of("classic").limit == 0
