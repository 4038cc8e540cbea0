"""Plain Celery and time: countdowns, long tasks, time limits, two beats."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.end_to_end.conftest import Daemon
from tests.faults.nodes import Hurt
from tests.peers.plain import LATE, QUEUE, QUORUM, Plain
from tests.provision import ready_in
from tests.waiting import until

pytestmark = pytest.mark.soak

COUNTDOWN_S = 6.0
CONSUMER_TIMEOUT_MS = 1000
AWAY_S = 5.0
TICKS = {"tick": {"task": "work", "schedule": 1.0}}


def test_four_tasks_with_a_countdown_freeze_a_worker_of_one_slot(plain: Plain) -> None:
    daemon = plain.worker("-c", "1")
    sent = time.time()
    plain.send("work", count=4, countdown=COUNTDOWN_S)
    until(lambda: daemon.log.count("received") == 4, COUNTDOWN_S, "the worker to take them")
    (now,) = plain.send("work")
    done = until(lambda: plain.begun(now), COUNTDOWN_S + 30, "its turn")
    # It was due at once, and the slot was free.
    assert done[0].at >= sent + COUNTDOWN_S


def delaying(queue: str, exchange: str) -> dict[str, Any]:
    """Return the settings of an application whose countdowns RabbitMQ keeps: Celery's own way."""
    return {
        **QUORUM,
        "task_default_queue": queue,
        "task_default_routing_key": queue,
        "task_default_exchange": exchange,
        "task_default_exchange_type": "topic",
    }


def test_a_countdown_that_rabbitmq_keeps_goes_to_queues_that_nobody_meant(plain: Plain) -> None:
    ours, theirs = delaying("eu.orders", "shop"), delaying("orders", "elsewhere")
    for settings, queue in ((ours, "eu.orders"), (theirs, "orders")):
        # It sets up what delays, and goes.
        daemon = plain.worker("--pool", "solo", settings=settings, queue=queue)
        until(lambda daemon=daemon: " ready." in daemon.log, 60, "all to be set up")
        assert daemon.stop() == 0
    plain.send("work", settings=ours)
    until(lambda: ready_in(plain.address, "eu.orders") == 1, 20, "what is due at once")
    assert ready_in(plain.address, "orders") == 0
    plain.send("work", settings=ours, countdown=1)
    until(lambda: ready_in(plain.address, "eu.orders") == 2, 20, "what was delayed")
    # Another application's, on an exchange of its own.
    until(lambda: ready_in(plain.address, "orders") == 1, 20, "what was not meant for it")
    with pytest.raises(ValueError, match="countdown must be a positive number"):
        plain.send("work", settings=ours, countdown=0.5)


def test_a_task_longer_than_the_consumer_time_out_begins_again_and_again(plain: Plain) -> None:
    plain.policy(consumer_timeout=CONSUMER_TIMEOUT_MS)
    plain.worker("-c", "1", settings={**QUORUM, **LATE})
    (long,) = plain.send("work", 4 * CONSUMER_TIMEOUT_MS / 1000, settings=QUORUM)
    begun = until(lambda: len(plain.begun(long)) == 3 and plain.begun(long), 60, "the third time")
    # None of it counts, so that no limit ends it.
    assert {line.attempt for line in begun} == {1}
    assert [line.redelivered for line in begun] == [False, True, True]


def test_a_hard_time_limit_is_told_twice(plain: Plain) -> None:
    plain.worker("-c", "1")
    (endless,) = plain.send("endless")
    until(lambda: plain.events(endless).count("failed") == 2, 30, "its end, told twice")
    assert plain.events(endless).count("began") <= 1


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_pools_without_a_time_limit_do_not_say_so(plain: Plain, pool: str) -> None:
    daemon = plain.worker("-c", "1", "--pool", pool, "--time-limit", "1")
    plain.send("work", 2.5)
    until(plain.done, 30, "its end, far too late")
    assert "imit" not in daemon.log.partition("ready.")[2]


def beat(plain: Plain, number: int = 0) -> Daemon:
    """Start a beat of a tick a second."""
    settings = {**QUORUM, "beat_schedule": TICKS}
    state = str(plain.folder / f"beat-{number}")
    return plain.spawn("beat", "--loglevel", "INFO", "--schedule", state, settings=settings)


def test_two_beats_send_each_tick_twice(plain: Plain) -> None:
    plain.declare(QUEUE, queue_type="quorum")
    began = time.monotonic()
    for number in range(2):
        beat(plain, number)
    # There is one tick a second, and one more for where it begins.
    until(
        lambda: ready_in(plain.address, QUEUE) > time.monotonic() - began + 3,
        timeout_s=60,
        what="more ticks than seconds",
    )


def test_what_was_due_while_rabbitmq_was_away_is_not_sent(hurt: Hurt, plain_hurt: Plain) -> None:
    plain_hurt.declare(QUEUE, queue_type="quorum")
    daemon = beat(plain_hurt)

    def ticks() -> int:
        assert daemon.process.poll() is None, daemon.log
        return ready_in(plain_hurt.address, QUEUE)

    before = until(ticks, 30, "the first tick")
    began = time.monotonic()
    hurt.kill()
    until(lambda: time.monotonic() - began > AWAY_S, AWAY_S + 10, "the outage to last")
    hurt.start()
    after = until(lambda: ticks() > before + 2 and ticks(), 90, "more ticks")
    lacking = time.monotonic() - began - (after - before)
    assert lacking >= AWAY_S - 1
