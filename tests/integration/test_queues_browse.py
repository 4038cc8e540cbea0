"""Looking into a queue changes neither its order nor RabbitMQ's count of failures."""

from __future__ import annotations

import pytest

from broker.errors import MissingOnBroker
from consumers.queues.browse import SLICE, Browser
from tests.letters import declare, fill, ids, inside
from tests.provision import ready_in


@pytest.fixture
def address(rabbitmq, vhost):
    return rabbitmq.address(vhost)


def looked(address, queue: str, most: int | None) -> list[int]:
    with Browser(address, queue) as browser:
        return [int(each.id) for each in browser.deliveries(most)]


def fall_over(address, queue: str, *, at: str) -> None:
    with Browser(address, queue) as browser:
        for each in browser.deliveries():
            if each.id == at:
                raise KeyError(at)


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_looking_keeps_the_order_however_far_one_looks(address, kind) -> None:
    count = SLICE + 500
    declare(address, "q", queue_type=kind)
    fill(address, "q", count)
    # What was looked at comes back at the front, or behind what came back before it.
    for most in (10, None, 10, SLICE + 100, 1, None):
        assert looked(address, "q", most) == list(range(count if most is None else most))
    assert ready_in(address, "q") == count


def test_looking_is_a_failed_attempt_only_before_4_3(rabbitmq, address) -> None:
    free = rabbitmq.knows("4.3")
    declare(address, "q", queue_type="quorum", delivery_limit=1 if free else -1)
    fill(address, "q", 20)
    for most in (None, 5, None, 5, None):
        looked(address, "q", most)
    found = inside(address, "q")
    assert [int(each.id) for each in found] == list(range(20))
    assert all(("x-delivery-count" not in each.headers) is free for each in found)


def test_what_is_let_go_is_gone_and_the_others_keep_their_places(rabbitmq, address) -> None:
    count = SLICE + 500
    declare(address, "q", queue_type="quorum")
    fill(address, "q", count)
    with Browser(address, "q") as browser:
        for each in browser.deliveries():
            if int(each.id) % 3 == 0:
                browser.let_go(each)
    left = [number for number in range(count) if number % 3]
    assert ready_in(address, "q") == len(left)
    assert [int(id) for id in ids(address, "q")] == left
    free = rabbitmq.knows("4.3")
    assert all(("x-delivery-count" not in each.headers) is free for each in inside(address, "q"))


def test_all_may_be_let_go(address) -> None:
    declare(address, "q", queue_type="quorum")
    fill(address, "q", SLICE + 500)
    with Browser(address, "q") as browser:
        for each in browser.deliveries():
            browser.let_go(each)
    assert ready_in(address, "q") == 0


def test_what_comes_while_one_looks_stays_behind_it(address) -> None:
    declare(address, "q", queue_type="quorum")
    fill(address, "q", 10)
    with Browser(address, "q") as browser:
        found = browser.deliveries()
        first = next(found)
        fill(address, "q", 2)
        assert [int(each.id) for each in (first, *found)] == list(range(10))
    assert [int(id) for id in ids(address, "q")] == [*range(10), 0, 1]


def test_an_error_while_looking_gives_everything_back(rabbitmq, address) -> None:
    declare(address, "q", queue_type="quorum", delivery_limit=1 if rabbitmq.knows("4.3") else -1)
    fill(address, "q", 50)
    for _ in range(3):
        with pytest.raises(KeyError):
            fall_over(address, "q", at="20")
    assert [int(id) for id in ids(address, "q")] == list(range(50))


def test_an_empty_queue_shows_nothing(address) -> None:
    declare(address, "q", queue_type="quorum")
    assert looked(address, "q", None) == []


def test_a_queue_that_is_missing_is_named(address) -> None:
    with pytest.raises(MissingOnBroker, match="no queue 'nowhere'"), Browser(address, "nowhere"):
        pass
