"""Schedules in the file: what may be written, and what they come to on RabbitMQ."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from broker.topology import Topology
from broker.topology.compile import compile_topology
from broker.topology.lint import check
from broker.topology.objects import POLICY, QUEUE, Identity
from broker.topology.token import Token

BASE = {
    "version": 1,
    "name": "shop",
    "queues": {"q": {"bindings": [{"exchange": "amq.topic", "routing_key": "#"}]}},
    "jobs": {"pack": {"exchange": "amq.topic", "routing_key": "pack", "arguments": {}}},
}


def topology(**schedule: object) -> Topology:
    return Topology.model_validate({**BASE, "schedules": {"s": schedule}})


def test_the_token_is_compiled_with_the_schedules_and_not_without() -> None:
    objects = compile_topology(topology(job="pack", every="5s"), secrets=False).objects
    queue = objects[Identity(QUEUE, ("shop.schedule",))]
    assert queue.attributes["arguments"] == {"x-single-active-consumer": True}
    policy = objects[Identity(POLICY, ("shop.schedule",))]
    assert policy.attributes["pattern"] == r"^shop\.schedule$"
    assert policy.attributes["definition"]["delivery-limit"] == -1
    assert policy.attributes["definition"]["consumer-timeout"] == 86_400_000
    without = compile_topology(Topology.model_validate(BASE), secrets=False).objects
    assert not [each for each in without if "schedule" in str(each.name)]


def test_two_topologies_share_no_token() -> None:
    one, other = Token("shop"), Token("shop.schedule")
    assert {one.queue, one.state}.isdisjoint({other.queue, other.state})


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"every": "5s", "cron": "* * * * *"}, "says either every or cron"),
        ({}, "says either every or cron"),
        ({"every": "5s", "timezone": "UTC"}, "an interval has no time zone"),
        ({"every": "1500ms"}, "a whole number of seconds"),
        ({"every": "0s"}, "longer than nothing"),
        ({"cron": "* * * *"}, "has 4 of the five fields"),
        ({"cron": "* * * * *", "timezone": "Paris"}, "no time zone is named 'Paris'"),
        ({"every": "5s", "catch_up": "some"}, "catch_up"),
    ],
)
def test_what_a_schedule_cannot_say(schedule: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        topology(job="pack", **schedule)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["a@b", "", "a b", "é", "x" * 129])
def test_a_name_is_part_of_message_ids(name: str) -> None:
    with pytest.raises(ValidationError, match="schedules"):
        Topology.model_validate({**BASE, "schedules": {name: {"job": "pack", "every": "5s"}}})


@pytest.mark.parametrize("name", ["shop.schedule", "shop.schedule.state"])
def test_the_names_of_the_token_are_reserved(name: str) -> None:
    data = {**BASE, "queues": {name: {}}}
    Topology.model_validate(data)
    with pytest.raises(ValidationError, match="is reserved: schedules make"):
        Topology.model_validate({**data, "schedules": {"s": {"job": "pack", "every": "5s"}}})


def test_lint_finds_jobs_and_arguments_that_do_not_exist() -> None:
    (found,) = check(topology(job="pakc", every="5s"))
    assert (found.rule, found.path) == ("unknown-job", ("schedules", "s", "job"))
    assert "did you mean 'pack'?" in found.text
    (found,) = check(topology(job="pack", every="5s", arguments={"boxes": 3}))
    assert (found.rule, found.path) == ("schedule-arguments", ("schedules", "s", "arguments"))
