"""Dead letters are sent again without loss, and what is not meant stays as it is."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from broker.body import Body
from broker.case_file import CASE_PREFIX, REPLAYS, Reason
from broker.confirmed import ConfirmedChannel
from broker.connection import connect
from broker.errors import InvalidInput, Rejected, Unroutable
from broker.message import DEADLINE, PUBLISHED
from broker.topology import Topology
from consumers.dead_letters.letter import Filter, Letter, grouped
from consumers.dead_letters.replay import NotReplayed, Tally, replay
from consumers.dead_letters.where import dead_letter_queues
from consumers.queues.browse import Browser
from producers.publisher import Publisher
from tests.letters import PUBLISHED_MS, bury, ids, inside, letter
from tests.provision import ready_in
from tests.waiting import until

NOW_MS = PUBLISHED_MS + 100_000


@contextmanager
def channel(address):
    confirmed = ConfirmedChannel(address)
    try:
        yield confirmed
    finally:
        confirmed.close()


def replayed(address, meant: Filter = Filter(), **options) -> Tally:  # noqa: B008  (a value)
    tally = Tally()
    with channel(address) as confirmed, Browser(address, "jobs.dead") as browser:
        replay(
            browser,
            confirmed,
            "jobs.dead",
            meant=meant,
            tally=tally,
            now_ms=lambda: NOW_MS,
            **options,
        )
    return tally


def test_the_same_message_goes_where_it_was_published(provisioned) -> None:
    headers = {
        "ratio": 0.1,
        "price": Decimal("1.25"),
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "deep": {"list": [1, -2, 2**40, True, None, "ä"]},
        "raw": b"\xff\x00",
    }
    message = letter(provisioned.topology, "a", headers=headers)
    bury(provisioned.address, [message])
    assert replayed(provisioned.address).replayed == 1
    (found,) = inside(provisioned.address, "jobs.normal")
    assert found.id == "a"
    assert (found.exchange, found.routing_key) == ("jobs", "normal.demo.add")
    assert found.content == message.body.content
    own = {key: value for key, value in message.headers.items() if not key.startswith(CASE_PREFIX)}
    assert own.keys() > headers.keys()
    got = dict(found.headers)
    got.pop(REPLAYS)
    assert got.pop("when") in (own["when"], own.pop("when").replace(tzinfo=None))
    assert got == {key: value for key, value in own.items() if key != "when"}
    assert found.properties["priority"] == message.properties["priority"]
    assert found.properties["correlation_id"] == "a"
    assert ready_in(provisioned.address, "jobs.dead") == 0


@pytest.mark.parametrize("content", [b"\xff\xfe not JSON \x00", b"", b"x" * 300_000])
def test_an_undecodable_body_is_sent_byte_identical(provisioned, content) -> None:
    body = Body(content, "application/json", "utf-8")
    bury(
        provisioned.address,
        [letter(provisioned.topology, "a", body=body, reason=Reason.UNDECODABLE)],
    )
    assert replayed(provisioned.address).replayed == 1
    (found,) = inside(provisioned.address, "jobs.normal")
    assert found.content == content
    assert found.properties["content_type"] == "application/json"


def test_what_does_not_match_stays_in_place_and_in_order(provisioned) -> None:
    count = 600
    bury(
        provisioned.address,
        [
            letter(provisioned.topology, str(n), error="app.Odd" if n % 2 else "app.Even")
            for n in range(count)
        ],
    )
    for limit in (10, None):
        tally = replayed(
            provisioned.address, Filter(errors=frozenset({"Odd"})), limit=limit, max_replays=1
        )
        assert tally.replayed == (limit or count // 2 - 10)
        sent = ids(provisioned.address, "jobs.normal")
        assert sent == [str(n) for n in range(count) if n % 2][: len(sent)]
        assert ids(provisioned.address, "jobs.dead") == [
            str(n) for n in range(count) if n % 2 == 0 or str(n) not in set(sent)
        ]


def test_what_was_replayed_too_often_stays_and_is_named(provisioned) -> None:
    bury(provisioned.address, [letter(provisioned.topology, "a", replays=3)])
    tally = replayed(provisioned.address)
    assert tally.replayed == 0
    (stayed,) = tally.stayed
    assert isinstance(stayed.error, NotReplayed)
    assert "message a of queue 'jobs.dead' was replayed 3 times" in str(stayed.error)
    assert replayed(provisioned.address, max_replays=4).replayed == 1
    (found,) = inside(provisioned.address, "jobs.normal")
    assert found.headers[REPLAYS] == 4


def test_what_no_queue_takes_stays_and_is_named(provisioned) -> None:
    bury(
        provisioned.address,
        [
            letter(provisioned.topology, "lost", routing_key="nowhere"),
            letter(provisioned.topology, "gone", exchange="no.such.exchange"),
            letter(provisioned.topology, "good"),
        ],
    )
    tally = replayed(provisioned.address)
    assert tally.replayed == 1
    assert {each.letter.id for each in tally.stayed} == {"lost", "gone"}
    assert all(isinstance(each.error, Unroutable) for each in tally.stayed)
    assert ids(provisioned.address, "jobs.dead") == ["lost", "gone"]
    assert ids(provisioned.address, "jobs.normal") == ["good"]


def test_what_a_full_queue_refuses_stays(provisioned) -> None:
    # More than RabbitMQ lets in before a queue has told its publishers that it is full.
    count = 400
    bury(
        provisioned.address,
        [letter(provisioned.topology, str(n), job="test.tiny") for n in range(count)],
    )
    tally = replayed(provisioned.address, rate=2000.0)
    assert tally.stayed
    assert tally.replayed + len(tally.stayed) == count
    assert all(isinstance(each.error, Rejected) for each in tally.stayed)
    assert len(ids(provisioned.address, "jobs.tiny")) == tally.replayed
    assert ids(provisioned.address, "jobs.dead") == [each.letter.id for each in tally.stayed]


def test_a_deadline_that_has_passed_begins_anew(provisioned) -> None:
    late = letter(provisioned.topology, "late", deadline_s=60)
    early = letter(provisioned.topology, "early", deadline_s=3600)
    bury(provisioned.address, [late, early])
    replayed(provisioned.address)
    found = {each.id: each.headers for each in inside(provisioned.address, "jobs.normal")}
    assert found["late"][PUBLISHED] == NOW_MS
    assert found["late"][DEADLINE] == NOW_MS + 60_000
    assert found["early"][DEADLINE] == PUBLISHED_MS + 3_600_000


def test_what_rabbitmq_dead_lettered_goes_back_without_x_death(rabbitmq, provisioned) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("demo.add", 1, 2, id="a").wait()
    fail_until_dead(provisioned.address, "jobs.normal")
    (dead,) = inside(provisioned.address, "jobs.dead")
    found = Letter.of("jobs.dead", dead)
    assert found.case.reason == Reason.DELIVERY_LIMIT
    assert found.origin == ("jobs", "normal.demo.add")
    # An older one takes its count off what it dead-letters.
    attempts = 3 if rabbitmq.knows("4.3") else 0
    assert (found.case.queue, found.case.attempt) == ("jobs.normal", attempts)
    assert replayed(provisioned.address).replayed == 1
    (again,) = inside(provisioned.address, "jobs.normal")
    assert (again.id, again.headers[REPLAYS]) == ("a", 1)
    assert not [key for key in again.headers if key.startswith("x-")]


def fail_until_dead(address, queue: str) -> None:
    """Return a message as failed until its queue gives it up."""
    connection = connect(address)
    try:
        taking = connection.default_channel

        def given_up() -> bool:
            message = taking.basic_get(queue)
            if message is not None:
                taking.basic_reject(message.delivery_tag, requeue=True)
            return ready_in(address, "jobs.dead") == 1

        until(given_up, timeout_s=20, what="the message to be dead")
    finally:
        connection.release()


def test_a_message_that_never_died_is_not_sent_anywhere(provisioned) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("demo.add", 1, 2, id="a").wait()
    tally = Tally()
    with (
        channel(provisioned.address) as confirmed,
        Browser(provisioned.address, "jobs.normal") as browser,
    ):
        replay(browser, confirmed, "jobs.normal", meant=Filter(), tally=tally)
    assert (tally.replayed, len(tally.stayed)) == (0, 1)
    assert "does not say where it was published to" in str(tally.stayed[0].error)
    assert ids(provisioned.address, "jobs.normal") == ["a"]


def test_the_rate_is_kept(provisioned) -> None:
    import time

    bury(provisioned.address, [letter(provisioned.topology, str(n)) for n in range(11)])
    began = time.monotonic()
    assert replayed(provisioned.address, rate=20.0).replayed == 11
    assert time.monotonic() - began >= 0.5


def test_letters_are_grouped_and_told_apart(provisioned) -> None:
    bury(
        provisioned.address,
        [
            letter(provisioned.topology, "a", last_ms=1000),
            letter(provisioned.topology, "b", last_ms=3000, message="newer"),
            letter(provisioned.topology, "c", reason=Reason.TIME_LIMIT, error=""),
            letter(provisioned.topology, "d", job="demo.echo"),
        ],
    )
    letters = [Letter.of("jobs.dead", each) for each in inside(provisioned.address, "jobs.dead")]
    first, *others = grouped(letters)
    assert (first.count, first.oldest_ms, first.newest_ms) == (2, 1000, 3000)
    assert (first.job, first.error, first.reason, first.message) == (
        *("demo.add", "builtins.ValueError", "limit", "newer"),
    )
    assert sorted((each.job, each.reason, each.count) for each in others) == [
        ("demo.add", "time-limit", 1),
        ("demo.echo", "limit", 1),
    ]

    def taken(**options) -> str:
        return "".join(each.id for each in letters if Filter(**options).takes(each))

    assert taken() == "abcd"
    assert taken(jobs=frozenset({"demo.echo"})) == "d"
    assert taken(errors=frozenset({"ValueError"})) == "abd"
    assert taken(errors=frozenset({"builtins.ValueError"}), ids=frozenset({"b", "c"})) == "b"
    assert taken(reasons=frozenset({"time_limit"})) == "c"
    assert taken(before_ms=3000) == "a"
    assert taken(since_ms=3000, before_ms=3001) == "b"


def test_dead_letter_queues_are_those_that_no_worker_consumes(provisioned, tmp_path) -> None:
    assert dead_letter_queues(provisioned.topology) == ["jobs.dead"]
    text = provisioned.path.read_text()
    path = tmp_path / "consumed.yaml"
    path.write_text(text + "  dead: {queues: [jobs.dead]}\n")
    with pytest.raises(InvalidInput, match="--queue"):
        dead_letter_queues(Topology.load(path))
