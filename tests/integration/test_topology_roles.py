"""Roles against RabbitMQ's own regular expressions: odd names, and nothing beyond them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from amqp.exceptions import AccessRefused

from broker.connection import Address, connect
from broker.management import Management
from broker.topology import Topology
from tests.provision import provision

QUEUE = "q.a|b (1)\\ /~%#? é日[x]*+$^{2}"
EXCHANGE = "x.^(y)$ é"
PASSWORD = "pass@word/é"


@pytest.fixture
def users(rabbitmq, vhost, monkeypatch) -> Iterator[dict[str, Address]]:
    """A user of each role, by role; gone after the test."""
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    suffix = uuid.uuid4().hex[:8]
    roles = ("producer", "worker", "provisioner")
    file = {
        "version": 1,
        "name": "roles",
        "exchanges": {EXCHANGE: {"type": "topic"}, "x": {"type": "fanout"}},
        "queues": {QUEUE: {"bindings": [{"exchange": EXCHANGE}]}, "q": {}},
        "jobs": {"j": {"exchange": EXCHANGE}},
        "workers": {"w": {"queues": [QUEUE]}},
        "users": {f"{role}-{suffix}": {"password": PASSWORD, "role": role} for role in roles},
    }
    address = rabbitmq.address(vhost)
    with Management(address) as management:
        try:
            provision(Topology.model_validate(file), address)
            base = f"amqp://{{}}:{quote(PASSWORD, safe='')}@{address.host}:{address.port}/{vhost}"
            yield {role: Address.parse(base.format(f"{role}-{suffix}")) for role in roles}
        finally:
            for role in roles:
                management.delete("users", f"{role}-{suffix}")


def refused(address: Address, method: str, *args: object, **kwargs: object) -> bool:
    """Say whether RabbitMQ refuses a call on a channel of this user."""
    connection = connect(address)
    try:
        channel = connection.default_channel
        channel.confirm_select()
        getattr(channel, method)(*args, **kwargs)
        # The answer to a publish comes with the next synchronous call.
        channel.basic_qos(0, 1, False)
    except AccessRefused:
        return True
    finally:
        connection.release()
    return False


def publish(address: Address, exchange: str) -> bool:
    from amqp import Message

    return refused(address, "basic_publish", Message("x"), exchange, "k")


def test_each_role_can_do_its_work_and_nothing_else(users: dict[str, Address]) -> None:
    producer, worker, provisioner = users["producer"], users["worker"], users["provisioner"]
    assert not publish(producer, EXCHANGE)
    assert publish(producer, "x")
    assert publish(producer, "")
    assert refused(producer, "basic_get", QUEUE)
    assert refused(producer, "queue_declare", "new", durable=True)

    assert not refused(worker, "basic_get", QUEUE)
    assert refused(worker, "basic_get", "q")
    assert not publish(worker, "")
    assert publish(worker, EXCHANGE)
    assert refused(worker, "queue_delete", QUEUE)

    assert not refused(provisioner, "queue_unbind", QUEUE, EXCHANGE, "")
    assert not refused(provisioner, "queue_bind", QUEUE, EXCHANGE, "other")
    assert refused(provisioner, "queue_declare", f"{QUEUE}!", durable=True)
    assert not refused(provisioner, "queue_declare", "rabbitry.test", exclusive=True)
