"""A worker's connection to a real RabbitMQ: what is acknowledged together, and what is lost."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from kombu import Connection, Queue
from kombu.asynchronous import Hub

from broker.connection import Address, py_amqp_tls
from broker.contracts import Job
from consumers.transport import JobTransport
from producers.publisher import Publisher
from tests.integration.conftest import Provisioned
from tests.integration.test_publisher_tls import certificate, tls_port
from tests.provision import consumers_of, ready_in
from tests.waiting import until

__all__ = ["certificate", "tls_port"]

QUEUE = "jobs.normal"
logger = logging.getLogger("test")


class Loop:
    """An event loop that consumes a queue, a turn at a time."""

    def __init__(self, address: Address, *, prefetch: int) -> None:
        self.hub = Hub()
        self.connection = Connection(
            address.url.partition("?")[0],
            transport=JobTransport,
            ssl=py_amqp_tls(address) if address.tls else False,
        )
        self.messages: list[Any] = []
        transport = self.connection.transport
        transport.register_with_event_loop(self.connection.connection, self.hub)
        self.channel = self.connection.default_channel
        self.channel.basic_qos(0, prefetch, False)
        self.consumer = self.connection.Consumer(
            Queue(QUEUE, no_declare=True), on_message=self.messages.append
        )
        self.consumer.consume()

    def receive(self, count: int) -> list[Any]:
        """Turn until so many messages are there; return them."""

        deadline = time.monotonic() + 30
        while len(self.messages) < count:
            assert time.monotonic() < deadline, f"{len(self.messages)} of {count} messages"
            # Sleeps a second where nothing comes.
            self.hub.run_once()
        return self.messages

    def turn(self) -> None:
        # So that it does not sleep where nothing comes.
        self.hub.call_later(0, bool)
        self.hub.run_once()

    @property
    def writes(self) -> list[bytes]:
        """Note what is written from now on."""
        noted: list[bytes] = []
        transport = self.connection.connection.transport
        write = transport._write

        def note(data: bytes) -> None:
            noted.append(bytes(data))
            write(data)

        transport._write = note
        return noted


@pytest.fixture
def loop_of() -> Iterator[Callable[..., Loop]]:
    loops: list[Loop] = []

    def make(address: Address, *, prefetch: int = 0) -> Loop:
        loops.append(Loop(address, prefetch=prefetch))
        return loops[-1]

    yield make
    for each in loops:
        each.connection.close()
        each.hub.close()


def fill(provisioned: Provisioned, jobs: list[Job]) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        for receipt in publisher.publish_many(jobs):
            receipt.wait()


def small(count: int) -> list[Job]:
    return [Job("demo.echo", (number,)) for number in range(count)]


def left(provisioned: Provisioned, *, least: int = 1) -> int:
    """Return how many there are without a consumer that held them; they come back after a delay."""
    until(lambda: consumers_of(provisioned.address, QUEUE) == 0, 30, "no consumer")
    with contextlib.suppress(AssertionError):
        until(lambda: ready_in(provisioned.address, QUEUE) >= least, 1, "what was held")
    return ready_in(provisioned.address, QUEUE)


def errors_of(loop: Loop) -> tuple[type[Exception], ...]:
    return tuple(loop.connection.connection_errors)


def test_what_one_turn_settles_is_one_write_and_all_is_acknowledged(provisioned, loop_of) -> None:
    fill(provisioned, small(100))
    loop = loop_of(provisioned.address)
    messages = loop.receive(100)
    writes = loop.writes
    for message in messages[:50] + messages[60:]:
        message.ack_log_error(logger, errors_of(loop))
    assert writes == []
    loop.turn()
    # Up to the fiftieth at once, and each behind those that are open by itself.
    assert [len(write) for write in writes] == [21 * 41]
    loop.connection.close()
    assert left(provisioned, least=10) == 10


def test_what_is_collected_goes_before_whatever_else_the_channel_sends(
    provisioned, loop_of
) -> None:
    fill(provisioned, small(4))
    loop = loop_of(provisioned.address)
    first, second, third, fourth = loop.receive(4)
    writes = loop.writes
    for message in (first, third):
        message.ack_log_error(logger, errors_of(loop))
    second.reject_log_error(logger, errors_of(loop), requeue=True)
    assert [len(write) for write in writes] == [42, 21]
    fourth.ack_log_error(logger, errors_of(loop))
    # Closing writes it, too.
    loop.connection.close()
    assert left(provisioned) == 1


def test_what_a_turn_settles_before_it_sleeps_is_written_before_it_sleeps(
    provisioned, loop_of
) -> None:
    fill(provisioned, small(2))
    loop = loop_of(provisioned.address)
    first, second = loop.receive(2)
    writes = loop.writes
    slept_after: list[int] = []
    poll = loop.hub.poller.poll

    def note(timeout: float) -> Any:
        slept_after.append(len(writes))
        return poll(timeout)

    loop.hub.poller.poll = note
    loop.hub._loop = None  # its generator has the poller's method in hand
    for ack, schedule in ((first, loop.hub.call_soon), (second, partial(loop.hub.call_later, 0))):
        schedule(partial(ack.ack_log_error, logger, errors_of(loop)))
        loop.turn()
    assert slept_after == [1, 2]


def test_two_messages_ahead_are_enough_and_no_turn_waits_for_another(provisioned, loop_of) -> None:
    fill(provisioned, small(200))
    loop = loop_of(provisioned.address, prefetch=2)
    done = 0
    while done < 200:
        loop.receive(1)
        while loop.messages:
            loop.messages.pop().ack_log_error(logger, errors_of(loop))
            done += 1
    loop.turn()
    loop.connection.close()
    assert left(provisioned) == 0


def test_an_ack_after_the_connection_is_lost_is_logged_and_no_error(
    provisioned, loop_of, caplog
) -> None:
    fill(provisioned, small(3))
    loop = loop_of(provisioned.address)
    first, second, third = loop.receive(3)
    first.ack_log_error(logger, errors_of(loop))
    loop.connection.connection.collect()
    assert "couldn't ack the deliveries 1:" in caplog.text
    second.ack_log_error(logger, errors_of(loop))
    third.reject_log_error(logger, errors_of(loop), requeue=True)
    assert "Couldn't ack 2" in caplog.text
    until(lambda: ready_in(provisioned.address, QUEUE) == 3, 10, "all to be back")


def test_acks_are_written_at_once_where_no_loop_turns_any_more(provisioned, loop_of) -> None:
    fill(provisioned, small(2))
    loop = loop_of(provisioned.address)
    first, second = loop.receive(2)
    first.ack_log_error(logger, errors_of(loop))
    writes = loop.writes
    loop.hub.close()
    assert len(writes) == 1
    second.ack_log_error(logger, errors_of(loop))
    assert len(writes) == 2
    loop.connection.close()
    assert left(provisioned) == 0


@pytest.mark.soak
def test_small_and_large_messages_come_over_tls(
    provisioned, certificate, tls_port, loop_of
) -> None:
    address = provisioned.address
    large = np.arange(500_000, dtype=np.float64)
    jobs = small(300)
    jobs[100] = jobs[200] = Job("demo.echo", (large,))
    fill(provisioned, jobs)
    loop = loop_of(
        Address.parse(
            f"amqps://{address.user}:{address.password}@127.0.0.1:{tls_port}/{address.vhost_name}"
            f"?cacertfile={certificate}"
        )
    )
    messages = loop.receive(300)
    assert [len(messages[at].body) > 3_900_000 for at in (99, 100, 200)] == [False, True, True]
    for message in messages:
        message.ack_log_error(logger, errors_of(loop))
    loop.turn()
    loop.connection.close()
    assert left(provisioned) == 0
