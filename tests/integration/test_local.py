"""The private RabbitMQ: started once, found again after every crash, ended without a trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import amqp
import pytest

from broker import local
from broker.connection import Address, connect
from broker.local.engine import Engine
from broker.local.process import NODE_MARKER, marked
from broker.local.state import Home, State
from broker.local.way import Unavailable
from broker.management import Management
from tests.waiting import until

WAY = "debian"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    # The fetched RabbitMQ is shared with the developer's own node; everything else is not.
    if sys.platform != "linux" or os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        pytest.skip("Debian's packages are for root on Debian")
    home = Home(path=tmp_path / "home", roots=Home.default().roots)
    yield home
    local.down(home, purge=True)


def ways() -> list[str]:
    """Return the ways that can be taken here without fetching an image."""
    engine = Engine()
    try:
        engine.find_local()
    except Unavailable:
        return [WAY]
    return [WAY, "engine"]


def kill(state: State) -> None:
    """End a node as a crash would."""
    (node,) = state.nodes
    if node.process is not None:
        os.kill(node.process.pid, signal.SIGKILL)
    else:
        assert node.container is not None
        subprocess.run(["docker", "kill", node.container], capture_output=True, check=True)


def publish(url: str, text: str) -> None:
    connection = connect(Address.parse(url))
    channel = connection.channel()
    channel.confirm_select()
    channel.queue_declare(
        "kept", durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"}
    )
    confirmed: list[int] = []
    channel.events["basic_ack"].add(lambda tag, multiple: confirmed.append(tag))
    channel.basic_publish(amqp.Message(text, delivery_mode=2), "", "kept")
    while not confirmed:
        connection.drain_events(timeout=10)
    connection.release()


def taken(url: str) -> list[str]:
    connection = connect(Address.parse(url))
    found = []
    while message := connection.default_channel.basic_get("kept", no_ack=True):
        found.append(message.body)
    connection.release()
    return found


@pytest.mark.soak
@pytest.mark.parametrize("way", ways())
def test_its_data_outlives_a_stop_and_a_kill(home: Home, way: str) -> None:
    state = local.up(home, way=way)
    assert state.way == way
    assert local.up(home) == state
    assert local.status(home) == state
    assert local.private_url(home) == state.url
    with Management(Address.parse(state.url)) as management:
        denied = {
            each["name"]
            for each in management.get("deprecated-features")
            if each["state"] == "denied"
        }
    # The management API tells the plugins only with its statistics, many seconds later.
    log = local.logs(home, lines=1000)
    started = log[log.rindex("Server startup complete") :]
    for plugin in ("rabbitmq_management", "rabbitmq_prometheus", "rabbitmq_shovel"):
        assert f"* {plugin}" in started
    assert {"transient_nonexcl_queues", "global_qos"} <= denied

    publish(state.url, "before the stop")
    assert local.down(home) is True
    assert local.status(home) is None
    assert local.private_url(home) is None
    assert marked(NODE_MARKER, str(home.path)) == []
    assert local.down(home) is False

    again = local.up(home)
    assert again.url == state.url
    publish(again.url, "before the kill")
    kill(again)
    until(lambda: local.status(home) is None, timeout_s=10, what="the node to be gone")
    once_more = local.up(home)
    assert once_more.url == state.url
    assert taken(once_more.url) == ["before the stop", "before the kill"]

    assert local.down(home, purge=True) is True
    assert not home.node.exists()
    assert marked(NODE_MARKER, str(home.path)) == []


# The older series may have to be fetched first.
@pytest.mark.timeout(600)
@pytest.mark.soak
def test_each_series_has_its_own_data_and_the_last_one_is_started_again(home: Home) -> None:
    newest = local.up(home, way=WAY)
    publish(newest.url, "in the newest")
    older = local.up(home, way=WAY, series="4.0")
    assert older.version is not None
    assert older.version.startswith("4.0.")
    assert older.url == newest.url
    publish(older.url, "in the older")
    local.down(home)
    assert local.up(home) == local.status(home)
    assert taken(older.url) == ["in the older"]
    again = local.up(home, series="4.3")
    assert again.version == newest.version
    assert taken(again.url) == ["in the newest"]
    assert "Server startup complete" in local.logs(home, lines=1000)


def test_two_ups_at_once_start_one_node_and_everything_listens_on_loopback(
    home: Home, tmp_path: Path
) -> None:
    env = {**os.environ, "RABBITRY_HOME": str(home.path), "RABBITRY_ROOTS": str(home.roots)}
    command = [sys.executable, "-m", "rabbitry", "broker", "up", "--way", WAY]
    both = [
        subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    urls = [process.communicate(timeout=100)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert urls[0] == urls[1]
    state = local.status(home)
    assert state is not None
    assert urls[0].strip() == state.url
    ports = state.nodes[0].ports
    listening = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    places = {line.split()[3] for line in listening.splitlines()}
    for port in (ports.amqp, ports.management, ports.prometheus, ports.distribution, ports.epmd):
        assert f"127.0.0.1:{port}" in places
        assert f"0.0.0.0:{port}" not in places
        assert f"*:{port}" not in places


@pytest.mark.soak
def test_a_start_that_was_killed_half_way_is_cleared_away_by_the_next(home: Home) -> None:
    env = {**os.environ, "RABBITRY_HOME": str(home.path), "RABBITRY_ROOTS": str(home.roots)}
    command = [sys.executable, "-m", "rabbitry", "broker", "up", "--way", WAY]
    half = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: marked(NODE_MARKER, str(home.path)), timeout_s=60, what="the node to be started")
    half.kill()
    half.wait()
    assert local.status(home) is None
    state = local.up(home, way=WAY)
    assert local.status(home) == state


def test_an_interrupted_fetch_leaves_nothing_that_counts(tmp_path: Path) -> None:
    from broker.local.debian import _remove, root_of

    home = Home(path=tmp_path / "home", roots=tmp_path / "roots")
    partial = root_of(home).with_suffix(".partial")
    (partial / "usr").mkdir(parents=True)
    assert not root_of(home).exists()
    _remove(partial)
    assert not partial.exists()
