"""A worker's user has the rights of its role and no more, and everything works."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import pytest

from broker.connection import Address
from broker.management import Management
from broker.topology import Topology
from producers.caller import Caller
from producers.publisher import Publisher
from tests.integration.conftest import Provisioned
from tests.provision import QUICK, provision, ready_in, topology_of
from tests.waiting import until

# Unlike any of another test's: users are RabbitMQ's, not a virtual host's.
PASSWORD = "of a worker, and no secret"


@pytest.fixture
def provisioned(rabbitmq, vhost, tmp_path, monkeypatch):
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    users = f"""
  plain-{vhost}: {{password: "{PASSWORD}", role: worker, workers: [normal]}}
  controlled-{vhost}: {{password: "{PASSWORD}", role: worker, workers: [controlled]}}
jobs:"""
    text = dedent(QUICK).replace("\njobs:", f"\nusers:{users}")
    text += "  controlled: {queues: [jobs.normal], concurrency: 1, remote_control: true}\n"
    topology, path = topology_of(tmp_path, text)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    yield Provisioned(topology, path, address)
    with Management(address) as management:
        for name in topology.users:
            management.delete("users", name)


def url_of(address: Address, user: str) -> str:
    password = PASSWORD.replace(" ", "%20")
    vhost = address.vhost_name
    return f"amqp://{user}-{vhost}:{password}@{address.host}:{address.port}/{vhost}"


def permissions_of(address: Address, user: str) -> dict[str, str]:
    with Management(address) as management:
        return management.get("permissions", address.vhost_name, f"{user}-{address.vhost_name}")


def jobs_end(topology: Topology, address: Address) -> None:
    with Caller(topology, address.url) as caller:
        assert caller.call("demo.add", 1, 2, timeout_s=20) == 3
    with Publisher(topology, address.url) as publisher:
        publisher.publish("demo.fail").wait()
    until(lambda: ready_in(address, "jobs.dead") == 1, timeout_s=20, what="the dead letter")
    assert ready_in(address, "jobs.normal") == 0


def test_it_needs_no_right_to_configure_anything(provisioned, start) -> None:
    address = provisioned.address
    assert permissions_of(address, "plain")["configure"] == "^$"
    daemon = start(
        *("env", f"RABBITRY_URL={url_of(address, 'plain')}"),
        *(sys.executable, "-m", "rabbitry", "worker", "run", "normal"),
    )
    assert "are not compared with the file" in daemon.log
    jobs_end(provisioned.topology, address)
    assert daemon.stop() == 0
    assert "ACCESS_REFUSED" not in daemon.log


def test_with_remote_control_it_answers_celery(provisioned, start, env) -> None:
    address = provisioned.address
    daemon = start(
        *("env", f"RABBITRY_URL={url_of(address, 'controlled')}"),
        *(sys.executable, "-m", "rabbitry", "worker", "run", "controlled"),
    )
    jobs_end(provisioned.topology, address)
    ping = [sys.executable, "-m", "celery", "-A", "consumers.app", "inspect", "ping", "-t", "5"]
    done = subprocess.run(
        ping,
        env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "controlled@" in done.stdout
    assert "pong" in done.stdout
    assert daemon.stop() == 0
