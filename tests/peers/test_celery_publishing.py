"""Plain Celery and what it sends: losses, confirms, priorities, replies, arrays, declarations."""

from __future__ import annotations

import array
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import amqp
import pytest
from amqp.exceptions import AccessRefused, PreconditionFailed

from broker.connection import connect
from broker.management import Management
from tests.faults.nodes import Hurt
from tests.faults.working import check
from tests.letters import fill
from tests.peers.plain import QUEUE, QUORUM, Plain
from tests.provision import ready_in
from tests.waiting import until

pytestmark = pytest.mark.soak

SENT, CONFIRMS, CALLS = 2000, 500, 5
CONFIRMED: dict[str, Any] = {"broker_transport_options": {"confirm_publish": True}}
RPC: dict[str, Any] = {"result_backend": "rpc://"}
# More than RabbitMQ takes in one message.
TOO_LARGE = "x" * 17 * 2**20
LOST = "neither done nor waiting nor dead"
# Forty times what a publish is given in `tests.faults.test_publisher_deadline`.
HANGS_S = 10.0
DAY_MS = 24 * 60 * 60 * 1000


def taken(plain: Plain, count: int = 1) -> list[Any]:
    """Take messages out of the queue."""
    until(lambda: ready_in(plain.address, QUEUE) == count, 30, "what was sent to be there")
    connection = connect(plain.address)
    try:
        return [connection.default_channel.basic_get(QUEUE, no_ack=True) for _ in range(count)]
    finally:
        connection.release()


def test_what_was_published_is_lost_when_rabbitmq_is_killed(hurt: Hurt, plain_hurt: Plain) -> None:
    plain_hurt.declare(QUEUE)
    with plain_hurt.client() as client:
        for _ in range(SENT):
            plain_hurt.published.add(client.send_task("work").id)
        # Each has returned as if all were well.
        hurt.kill()
    hurt.start()
    ledger = plain_hurt.ledger()
    sys.stdout.write(f"{ledger.summary()}\n")
    with pytest.raises(AssertionError, match=LOST):
        check(ledger)


def test_what_no_queue_takes_vanishes_with_confirms_too(plain: Plain) -> None:
    plain.declare(QUEUE)
    plain.send("work", settings=CONFIRMED, exchange="amq.topic", routing_key="nowhere")
    with pytest.raises(AssertionError, match=LOST):
        check(plain.ledger())


def test_a_body_that_is_too_large_makes_the_next_publish_fail(plain: Plain) -> None:
    with plain.client() as client:
        client.send_task("work", (TOO_LARGE,))
        with pytest.raises(PreconditionFailed, match="larger than configured max size"):
            until(lambda: client.send_task("work") is None, 20, "an innocent one to fail")


def test_confirms_come_one_at_a_time(plain: Plain) -> None:
    plain.declare(QUEUE, queue_type="quorum")
    began = time.monotonic()
    fill(plain.address, QUEUE, CONFIRMS)
    window_s = time.monotonic() - began
    began = time.monotonic()
    plain.send("work", count=CONFIRMS, settings={**QUORUM, **CONFIRMED})
    plain_s = time.monotonic() - began
    sys.stdout.write(f"{CONFIRMS} confirmed: {window_s:.2f} s by a window, {plain_s:.2f} s plain\n")
    assert plain_s > 2 * window_s


def test_a_publish_hangs_while_rabbitmq_has_an_alarm(hurt: Hurt, plain_hurt: Plain) -> None:
    plain_hurt.declare(QUEUE)
    options = {"confirm_publish": True, "confirm_timeout": 1.0}
    hurt.raise_alarm()
    try:
        call = plain_hurt.spawn("call", "work", settings={"broker_transport_options": options})
        with pytest.raises(subprocess.TimeoutExpired):
            call.process.wait(HANGS_S)
        assert not ready_in(plain_hurt.address, QUEUE)
    finally:
        hurt.lift_alarm()
    # It was nothing else.
    until(lambda: ready_in(plain_hurt.address, QUEUE) == 1, 30, "it to go on")


def test_priority_0_comes_after_everybody_else(plain: Plain) -> None:
    plain.declare(QUEUE, queue_type="quorum")
    (ours,) = plain.send("work", settings=QUORUM)
    plain.put(b"[[], {}, {}]", id="of another client")
    found = taken(plain, 2)
    assert [each.properties["correlation_id"] for each in found] == ["of another client", ours]
    assert [each.properties.get("priority") for each in found] == [None, 0]


@pytest.fixture
def gate(plain: Plain) -> Iterator[int]:
    """Where gated tasks wait: each byte lets one of them through."""
    os.mkfifo(plain.folder / "gate")
    gate = os.open(plain.folder / "gate", os.O_RDWR)
    yield gate
    os.close(gate)


def test_what_matters_waits_behind_what_the_worker_has_taken(plain: Plain, gate: int) -> None:
    plain.send("gated", count=20, priority=0, settings=QUORUM)
    plain.worker("-c", "1", settings=QUORUM)
    until(plain.lines, 30, "the slot to be busy")
    # Confirmed, it is there.
    (first,) = plain.send("work", priority=9, settings={**QUORUM, **CONFIRMED})
    for completions in range(1, 20):
        os.write(gate, b".")
        # Two lines of each that is done, and the next has begun.
        until(lambda lines=2 * completions: len(plain.lines()) > lines, 30, "the next to begin")
        if plain.begun(first):
            break
    # There is one slot.
    assert completions > 2
    assert plain.begun(first)


def test_a_client_of_rpc_declares_its_queue_on_every_call_and_leaves_it(
    plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared: list[str] = []
    declare = amqp.Channel.queue_declare

    def counted(channel: Any, queue: str = "", *args: Any, **options: Any) -> Any:
        declared.append(queue)
        return declare(channel, queue, *args, **options)

    monkeypatch.setattr(amqp.Channel, "queue_declare", counted)
    with plain.client(RPC) as client:
        queue = client.thread_oid
        for _ in range(CALLS):
            client.send_task("work")
    # It has gone, and did not ask for its results.
    assert declared.count(queue) >= CALLS
    with Management(plain.address) as management:
        left = management.get("queues", plain.address.vhost_name, queue)
    assert not left["exclusive"]
    assert left["arguments"]["x-expires"] == DAY_MS


def test_arrays_are_lists_of_more_than_twice_the_size(plain: Plain) -> None:
    numbers = array.array("d", (n / 7 for n in range(10**5)))
    plain.declare(QUEUE)
    plain.send("work", list(numbers))
    (message,) = taken(plain)
    assert len(message.body) > 2 * len(numbers.tobytes())


def test_send_task_declares_what_it_sends_to_and_is_refused(plain: Plain) -> None:
    plain.declare("orders", queue_type="quorum")
    with pytest.raises(PreconditionFailed, match="inequivalent arg 'x-queue-type'"):
        plain.send("work", queue="orders")
    with (
        plain.user(configure="^$", write=".*", read=".*") as address,
        plain.client(address=address) as client,
        pytest.raises(AccessRefused, match="configure access"),
    ):
        client.send_task("work", queue="orders")
