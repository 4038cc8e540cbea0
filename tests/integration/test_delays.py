"""RabbitMQ holds delayed jobs: never early, to their queue and no other, and loses none."""

from __future__ import annotations

import ast
import random
import time
import uuid
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import amqp
import pytest
from amqp.exceptions import AccessRefused as NotAllowed

from broker.connection import Address, connect
from broker.errors import InvalidDelay, Unroutable
from broker.management import Management
from broker.topology import Topology
from producers.publisher import Job, Publisher
from tests.provision import provision, ready_in, topology_of
from tests.waiting import until

# `orders` takes every key that ends in orders, `eu` every one that begins with eu: with words put
# before the key, as native delayed delivery does, a job for eu.orders would reach either twice.
WILDCARDS = """
version: 1
name: {name}
vhost: {{name: unused, default_queue_type: quorum}}
exchanges:
  {name}.jobs: {{type: topic}}
queues:
  {name}.orders: {{bindings: [{{exchange: {name}.jobs, routing_key: "#.orders"}}]}}
  {name}.eu: {{bindings: [{{exchange: {name}.jobs, routing_key: "eu.#"}}]}}
  {name}.other: {{bindings: [{{exchange: {name}.jobs, routing_key: "#.other"}}]}}
delays: {{max: 1m}}
jobs:
  both: {{exchange: {name}.jobs, routing_key: eu.orders}}
  orders: {{exchange: {name}.jobs, routing_key: us.orders}}
  other: {{exchange: {name}.jobs, routing_key: us.other}}
  nowhere: {{exchange: {name}.jobs, routing_key: us}}
"""


@dataclass(frozen=True)
class Place:
    topology: Topology
    address: Address


@pytest.fixture
def place(rabbitmq, vhost, tmp_path, monkeypatch):
    """Return what applies a topology to the virtual host of the test."""
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    address = rabbitmq.address(vhost)

    def at(name: str) -> Place:
        folder = tmp_path / name
        folder.mkdir()
        topology, _ = topology_of(folder, WILDCARDS.format(name=name))
        provision(topology, address)
        return Place(topology, address)

    return at


class Arrivals:
    """Consumes queues; notes when each message arrived."""

    def __init__(self, address: Address, *queues: str) -> None:
        self.found: list[tuple[str, float, object]] = []
        self._connection = connect(address)
        channel = self._connection.default_channel
        for queue in queues:
            channel.basic_consume(
                queue,
                no_ack=True,
                callback=lambda message, queue=queue: self.found.append(
                    (queue, time.time(), message)
                ),
            )

    def __enter__(self) -> Arrivals:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.release()

    def wait(self, count: int, timeout_s: float) -> None:
        until(lambda: self._drain() or len(self.found) >= count, timeout_s, f"{count} arrivals")

    def quiet(self, seconds: float) -> None:
        """Watch for that long; whatever comes is found."""
        end = time.monotonic() + seconds
        until(lambda: self._drain() or time.monotonic() > end, seconds + 5, "the time to pass")

    def _drain(self) -> None:
        try:
            self._connection.drain_events(timeout=0.05)
        except TimeoutError:
            return


def test_no_job_is_early_whatever_its_priority(place) -> None:
    here = place("app")
    chosen = random.Random(4)
    delays = {str(i): chosen.uniform(0.01, 6) for i in range(60)}
    published: dict[str, float] = {}
    with Arrivals(here.address, "app.other") as arrivals:
        with Publisher(here.topology, here.address.url) as publisher:
            for id, delay_s in delays.items():
                published[id] = time.time()
                priority = chosen.choice([0, 4, 9, 31])
                publisher.publish("other", id=id, delay_s=delay_s, priority=priority)
            assert publisher.flush(10)
        assert ready_in(here.address, "app.other") == 0
        arrivals.wait(60, timeout_s=20)
    late = {
        message.properties["message_id"]: at - published[message.properties["message_id"]]
        for _, at, message in arrivals.found
    }
    late = {id: took - delays[id] for id, took in late.items()}
    assert len(late) == 60
    assert min(late.values()) >= 0
    # Rounded up to whole seconds, and what each rung takes.
    assert max(late.values()) < 3


def test_a_low_priority_is_not_held_up_by_a_stream_of_higher_ones(place) -> None:
    here = place("app")
    with (
        Arrivals(here.address, "app.other") as arrivals,
        Publisher(here.topology, here.address.url) as publisher,
    ):
        started = time.time()
        publisher.publish("other", id="low", delay_s=4, priority=0).wait()
        # Longer than the rung holds one: it never is without a younger one of high priority.
        while time.time() - started < 8:
            publisher.publish("other", delay_s=4, priority=31).wait()
            arrivals.quiet(0.1)
    took = [
        at - started
        for _, at, message in arrivals.found
        if message.properties["message_id"] == "low"
    ]
    assert len(took) == 1
    assert 4 <= took[0] < 6


def test_a_delayed_job_arrives_once_in_each_queue_it_would_have_gone_to(place) -> None:
    here = place("app")
    with (
        Arrivals(here.address, "app.orders", "app.eu", "app.other") as arrivals,
        Publisher(here.topology, here.address.url) as publisher,
    ):
        publisher.publish("both", delay_s=1).wait()
        publisher.publish("orders", delay_s=3).wait()
        arrivals.wait(3, timeout_s=15)
        arrivals.quiet(1)
    found = Counter(
        (queue, message.properties["application_headers"]["task"])
        for queue, _, message in arrivals.found
    )
    assert found == {("app.orders", "both"): 1, ("app.eu", "both"): 1, ("app.orders", "orders"): 1}
    keys = {message.delivery_info["routing_key"] for _, _, message in arrivals.found}
    assert keys == {"eu.orders", "us.orders"}


def test_two_applications_in_one_virtual_host_keep_to_themselves(place) -> None:
    first, second = place("first"), place("second")
    queues = [f"{name}.{queue}" for name in ("first", "second") for queue in ("orders", "other")]
    with Arrivals(first.address, *queues) as arrivals:
        for here in (first, second):
            with Publisher(here.topology, here.address.url) as publisher:
                for job in ("orders", "other"):
                    publisher.publish(job, here.topology.name, delay_s=2).wait()
        arrivals.wait(4, timeout_s=15)
        arrivals.quiet(1)
    found = Counter(
        (queue, ast.literal_eval(message.properties["application_headers"]["argsrepr"])[0])
        for queue, _, message in arrivals.found
    )
    assert found == {
        (f"{name}.{queue}", name): 1
        for name in ("first", "second")
        for queue in ("orders", "other")
    }


def test_a_message_keeps_its_properties_and_says_when_it_is_due(place) -> None:
    here = place("app")
    eta = datetime.now(UTC) + timedelta(seconds=1.5)
    with (
        Arrivals(here.address, "app.other") as arrivals,
        Publisher(here.topology, here.address.url) as publisher,
    ):
        job = Job("other", eta=eta, id="one", priority=9, headers={"tenant": "a"}, deadline_s=60)
        publisher.publish(job).wait()
        arrivals.wait(1, timeout_s=15)
    _, at, message = arrivals.found[0]
    assert at >= eta.timestamp()
    assert (message.properties["message_id"], message.properties["priority"]) == ("one", 9)
    headers = message.properties["application_headers"]
    assert headers["tenant"] == "a"
    assert abs(datetime.fromisoformat(headers["eta"]) - eta) < timedelta(seconds=0.001)


def test_what_can_be_told_at_once_is(place) -> None:
    here = place("app")
    with Publisher(here.topology, here.address.url) as publisher:
        with pytest.raises(InvalidDelay, match=r"2m, longer than the 1m of the topology's delays"):
            publisher.publish("other", delay_s=120)
        with pytest.raises(InvalidDelay, match="reach no queue"):
            publisher.publish("nowhere", delay_s=1)
        with pytest.raises(InvalidDelay, match="time zone"):
            publisher.publish("other", eta=datetime(2100, 1, 1))
        with pytest.raises(InvalidDelay, match="one of them"):
            publisher.publish("other", delay_s=1, eta=datetime.now(UTC))
        with pytest.raises(InvalidDelay, match="past its deadline"):
            publisher.publish("other", delay_s=10, deadline_s=5)
        # What is due already does not wait.
        publisher.publish("other", eta=datetime(2020, 1, 1, tzinfo=UTC)).wait()
    assert ready_in(here.address, "app.other") == 1


def test_a_ladder_that_is_not_applied_yet_is_an_unroutable_job(place, tmp_path) -> None:
    here = place("app")
    longer, _ = topology_of(tmp_path, WILDCARDS.format(name="app").replace("1m", "10m"))
    with Publisher(longer, here.address.url) as publisher:
        with pytest.raises(Unroutable, match=r"app\.delays\.64s"):
            publisher.publish("other", delay_s=100).wait()
        publisher.publish("other").wait()


def test_a_job_whose_queue_is_gone_when_it_is_due_is_kept_in_sight(place) -> None:
    here = place("app")
    with Publisher(here.topology, here.address.url) as publisher:
        publisher.publish("other", delay_s=1).wait()
        publisher.publish("orders", delay_s=1).wait()
    connection = connect(here.address)
    try:
        connection.default_channel.queue_delete("app.other")
    finally:
        connection.release()
    until(lambda: ready_in(here.address, "app.delays.lost") == 1, timeout_s=15, what="the lost job")
    until(lambda: ready_in(here.address, "app.orders") == 1, timeout_s=15, what="the other job")


@pytest.mark.soak
@pytest.mark.timeout(500)
def test_a_rung_that_is_missing_makes_nothing_early(place) -> None:
    here = place("app")
    connection = connect(here.address)
    try:
        connection.default_channel.queue_delete("app.delays.2s")
    finally:
        connection.release()
    with Publisher(here.topology, here.address.url) as publisher:
        with pytest.raises(Unroutable):
            publisher.publish("other", delay_s=2).wait()
        # It waits on the rung above and cannot go on.
        publisher.publish("other", id="kept", delay_s=6).wait()
    until(lambda: ready_in(here.address, "app.delays.4s") == 0, 15, "the rung to let it go")
    provision(here.topology, here.address)
    # RabbitMQ looks again for where to put it only every three minutes.
    until(lambda: ready_in(here.address, "app.other") == 1, 400, "the job")


def test_the_roles_may_do_what_delays_need_and_no_more(place) -> None:
    here = place("app")
    password, suffix = "not a secret", uuid.uuid4().hex[:8]
    web, ops = f"web-{suffix}", f"ops-{suffix}"
    users = {
        web: {"role": "producer", "password": password},
        ops: {"role": "provisioner", "password": password},
    }
    document = here.topology.model_dump(exclude_unset=True)
    longer = Topology.model_validate({**document, "delays": {"max": timedelta(minutes=10)}})
    with Management(here.address) as management:
        try:
            provision(Topology.model_validate({**document, "users": users}), here.address)
            theirs = {name: replace(here.address, user=name, password=password) for name in users}
            with Publisher(here.topology, theirs[web].url) as publisher:
                publisher.publish("other", delay_s=1).wait()
            provision(longer, theirs[ops])
            with Publisher(longer, theirs[web].url) as publisher:
                publisher.publish("other", delay_s=500).wait()
            connection = connect(theirs[web])
            try:
                with pytest.raises(NotAllowed, match=r"app\.delays\.due"):
                    connection.default_channel.basic_publish_confirm(
                        amqp.Message("x"), "app.delays.due"
                    )
            finally:
                connection.release()
        finally:
            for name in users:
                management.delete("users", name)


def test_a_plan_tells_of_a_new_ladder_in_one_line(rabbitry, tmp_path) -> None:
    _, path = topology_of(tmp_path, WILDCARDS.format(name="app"))
    plan = rabbitry("topology", "plan", "--topology", path)
    lines = plan.stdout.splitlines()
    assert [each for each in lines if "app.delays" in each] == [
        "+ delay ladder app.delays: binding 16, exchange 8, policy 1, queue 7; --json names each"
    ]
    assert "+ queue 'app.eu'" in lines
