"""RabbitMQ is restarted, stops consumers or loses a queue while a worker works."""

from __future__ import annotations

import time

import pytest

from broker.management import Management
from tests.faults.working import QUEUE, Field, check
from tests.provision import consumers_of, provision
from tests.waiting import until

BACK_S = 5.0
SLOTS = 2


def wait_consuming(field: Field, since: float) -> None:
    """Wait until the worker begins a job; see that it did so in time."""
    field.publish(1, seconds=0.001)
    until(lambda: any(line.at > since for line in field.lines()), 40, "a job to begin")
    first = min(line.at for line in field.lines() if line.at > since)
    assert first - since <= BACK_S, f"{first - since:.1f} s; {field.said()}"


@pytest.mark.parametrize("how", [pytest.param("stopped", marks=pytest.mark.soak), "killed"])
def test_a_restart_of_rabbitmq_loses_nothing(field: Field, how: str) -> None:
    daemon = field.start()
    jobs = set(field.publish(1000, seconds=0.005))
    field.wait_done(lambda done: len(done & jobs) > 50)
    if how == "stopped":
        field.hurt.stop()
    else:
        field.hurt.kill()
    until(lambda: "no connection" in daemon.log, 20, "the worker to miss RabbitMQ")
    field.hurt.start()
    wait_consuming(field, time.time())
    field.wait_all_done()
    assert daemon.process.poll() is None
    assert len({line.parent for line in field.lines()}) == 1
    assert daemon.stop() == 0
    check(field.close(), again=SLOTS)


def test_a_consumer_that_rabbitmq_cancels_is_back_with_its_queue(field: Field) -> None:
    daemon = field.start()
    for _ in range(2):
        jobs = set(field.publish(400, seconds=0.005))
        field.wait_done(lambda done, jobs=jobs: len(done & jobs) > 20)
        with Management(field.address) as management:
            # RabbitMQ cancels the consumer; what the queue held is the operator's loss.
            management.delete("queues", field.address.vhost_name, QUEUE)
        until(lambda: daemon.log.count("no queue"), 20, "the worker to miss its queue")
        # What it held when the queue went it may still finish.
        done = {line.id for line in field.lines() if line.event == "done"}
        field.deleted |= jobs - done
        provision(field.topology, field.address)
        wait_consuming(field, time.time())
        until(lambda: consumers_of(field.address, QUEUE) == 1, 10, "one consumer")
    field.publish(50, seconds=0.001)
    field.wait_all_done()
    assert daemon.process.poll() is None
    assert len({line.parent for line in field.lines()}) == 1
    assert daemon.stop() == 0
    check(field.close())


def test_a_connection_that_rabbitmq_closes_is_made_anew(field: Field) -> None:
    daemon = field.start()
    jobs = set(field.publish(300, seconds=0.005))
    closes = 2
    for number in range(closes):
        field.wait_done(lambda done, number=number: len(done & jobs) > 100 * number + 20)

        def close() -> bool:
            with Management(field.address) as management:
                found = management.get("connections", "username", field.address.user)
                ours = [each for each in found if each["vhost"] == field.address.vhost_name]
                for each in ours:
                    management.delete("connections", each["name"])
            return bool(ours)

        until(close, 20, "the connection to be listed")
        wait_consuming(field, time.time())
    field.wait_all_done()
    assert daemon.stop() == 0
    check(field.close(), again=SLOTS * closes)
