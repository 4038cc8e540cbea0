"""RabbitMQ is killed while jobs wait on it: all arrive, and none early."""

from __future__ import annotations

import random
import time

from broker.connection import connect
from broker.management import Management
from broker.receipt import Routed
from producers.publisher import Job, Publisher
from tests.faults.conftest import JOBS
from tests.provision import provision, ready_in, topology_of
from tests.waiting import until

COUNT = 2000


def test_jobs_that_wait_outlive_a_crash_of_rabbitmq(ground) -> None:
    topology, _ = topology_of(ground.folder, JOBS + "delays: {max: 1m}\n")
    provision(topology, ground.address)
    chosen = random.Random(5)
    due: dict[str, float] = {}

    def jobs():
        for number in range(COUNT):
            delay_s = chosen.uniform(1, 12)
            due[str(number)] = time.time() + delay_s
            priority = chosen.choice([0, 4, 9])
            yield Job("normal", id=str(number), delay_s=delay_s, priority=priority)

    with Publisher(topology, ground.address.url) as publisher:
        receipts = list(publisher.publish_many(jobs()))
        routed = {each.message_id for each in receipts if isinstance(each.outcome, Routed)}
        again = {each.message_id for each in receipts if each.redelivered}
        # When some rungs have let go of theirs, and others not.
        until(lambda: ready_in(ground.address, "jobs.normal") > 100, 15, "the first to be due")
        ground.hurt.kill()
        ground.hurt.start()
    assert routed == set(due)

    arrived: dict[str, list[float]] = {}
    connection = connect(ground.address)
    try:
        channel = connection.default_channel

        def note(message) -> None:
            arrived.setdefault(message.properties["message_id"], []).append(time.time())

        # One by one: when all are due and one more second has passed, nothing may be missing.
        def all_here() -> bool:
            while (message := channel.basic_get("jobs.normal", no_ack=True)) is not None:
                note(message)
            return arrived.keys() >= routed

        until(all_here, timeout_s=90, what=f"{COUNT} jobs")
    finally:
        connection.release()
    assert arrived.keys() == set(due)
    for id, times in arrived.items():
        assert min(times) >= due[id], f"job {id} came early"
    # What RabbitMQ had moved on and not yet noted when it died comes twice: at most what a rung
    # moves at a time, which is 32.
    twice = {id for id, times in arrived.items() if len(times) > 1} - again
    assert len(twice) <= 32 * 6
    with Management(ground.address) as management:
        queues = management.get("queues", ground.address.vhost_name)
    assert {each["name"] for each in queues if each["name"].startswith("faults.delays.")} >= {
        "faults.delays.1s",
        "faults.delays.lost",
    }
    assert ready_in(ground.address, "faults.delays.lost") == 0
