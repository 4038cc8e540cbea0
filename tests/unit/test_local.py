"""What is remembered of the private RabbitMQ, and which way is taken."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from broker import local
from broker.errors import LocalNodeError
from broker.local import ports
from broker.local.debian import root_of
from broker.local.process import Process, marked, stop
from broker.local.settings import plugins, shared_file
from broker.local.state import Home, Node, Ports, State, load, private_url, save
from broker.local.way import Unavailable
from tests.waiting import until

PORTS = Ports(amqp=20001, management=30001, prometheus=20002, distribution=20003, epmd=20004)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(path=tmp_path / "home", roots=tmp_path / "roots")


def state_of(process: Process | None) -> State:
    return State(
        phase="running",
        way="debian",
        user="u",
        password="p/w",
        version="4.3.6",
        nodes=(Node(name="rabbitry@localhost", ports=PORTS, process=process),),
    )


def test_the_state_goes_round_and_only_its_owner_reads_it(home: Home) -> None:
    state = state_of(Process(1, 2))
    save(home, state)
    assert load(home) == state
    assert home.state_file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"phase": "running"}', "null"])
def test_a_damaged_state_names_the_remedy(home: Home, text: str) -> None:
    home.node.mkdir(parents=True)
    home.state_file.write_text(text)
    with pytest.raises(LocalNodeError, match="--purge"):
        load(home)
    assert private_url(home) is None
    assert local.down(home, purge=True)
    assert load(home) is None


def test_the_url_is_known_only_while_the_very_process_lives(home: Home) -> None:
    here = Process.of(os.getpid())
    assert here is not None
    save(home, state_of(here))
    assert private_url(home) == "amqp://u:p%2Fw@127.0.0.1:20001/"
    reused = dataclasses.replace(here, started=here.started - 1)
    save(home, state_of(reused))
    assert private_url(home) is None
    assert local.status(home) is None


def test_ports_of_the_last_time_are_taken_again_unless_somebody_has_them(home: Home) -> None:
    assert ports.choose_ports(home.path, kept=PORTS, free=lambda port: True) == PORTS
    other = ports.choose_ports(home.path, kept=PORTS, free=lambda port: port != PORTS.epmd)
    assert other.amqp != PORTS.amqp
    assert other.management == other.amqp + 10_000
    with pytest.raises(LocalNodeError, match="no free ports"):
        ports.choose_ports(home.path, free=lambda port: False)


def test_homes_begin_at_different_ports(tmp_path: Path) -> None:
    chosen = {ports.choose_ports(tmp_path / str(n), free=lambda port: True).amqp for n in range(20)}
    assert len(chosen) > 15


def test_what_a_crash_left_behind_is_found_and_ended_and_nothing_else(tmp_path: Path) -> None:
    def sleeper(marker: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            env={**os.environ, "RABBITRY_TEST_MARK": marker},
        )

    ours, theirs = sleeper(str(tmp_path)), sleeper("another")
    try:
        # The system shows a process's variables a moment after it has begun.
        until(
            lambda: marked("RABBITRY_TEST_MARK", str(tmp_path)) == [ours.pid],
            timeout_s=10,
            what="it to be found",
        )
        assert stop("RABBITRY_TEST_MARK", str(tmp_path), grace_s=10) is True
        assert ours.wait(10) != 0
        assert theirs.poll() is None
        assert stop("RABBITRY_TEST_MARK", str(tmp_path), grace_s=10) is False
    finally:
        for process in (ours, theirs):
            process.kill()
            process.communicate()


def test_ways_are_tried_in_order_and_the_error_names_the_remedies(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    class Refusing:
        def __init__(self, name: str, series: str | None = None) -> None:
            self.name = name if series is None else f"{name} {series}"

        def prepare(self, home: Home, say: local.Say) -> None:
            tried.append(self.name)
            raise Unavailable(f"no {self.name}")

        def stop(self, home: Home, node: object) -> bool:
            return False

    monkeypatch.setattr(local, "_way", Refusing)
    said: list[str] = []
    with pytest.raises(LocalNodeError) as caught:
        local.up(home, say=lambda text, fraction=None: said.append(text))
    assert tried == ["engine", "path", "debian"]
    assert said == [f"not by way of {name}: no {name}" for name in tried]
    for remedy in ("Docker", "PATH", "root on Debian"):
        assert remedy in str(caught.value)
    tried.clear()
    with pytest.raises(LocalNodeError):
        local.up(home, way="path")
    assert tried == ["path"]
    with pytest.raises(LocalNodeError, match=r"no RabbitMQ 4\.0 can be started"):
        local.up(home, series="4.0")
    assert tried[1:] == ["engine 4.0", "path 4.0", "debian 4.0"]
    with pytest.raises(
        LocalNodeError, match=r"take one that Debian has packages of \(4\.0, 4\.3\)"
    ):
        local.up(home, series="4.1")


def test_an_old_server_on_the_path_is_passed_over(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from broker.local.path import OnPath

    for name, text in (("rabbitmq-server", "exit 1"), ("rabbitmqctl", "echo 3.13.7")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(Unavailable, match=r"3\.13\.7, 4\.0 is the oldest"):
        OnPath().prepare(home, lambda text, fraction=None: None)
    # What the command leaves running, as Erlang's port mapper, is ended.
    left = tmp_path / "left"
    (tmp_path / "rabbitmqctl").write_text(
        f"#!/bin/sh\nsleep 600 >/dev/null 2>&1 &\necho $! > {left}\necho 4.1.0\n"
    )
    OnPath().prepare(home, lambda text, fraction=None: None)
    with pytest.raises(Unavailable, match=r"is 4\.1\.0, not 4\.2"):
        OnPath("4.2").prepare(home, lambda text, fraction=None: None)
    until(
        lambda: Process.of(int(left.read_text())) is None,
        timeout_s=5,
        what="the process that was left behind to end",
    )


def test_each_series_has_data_and_a_root_folder_of_its_own(home: Home) -> None:
    assert home.folder("debian", "4.0") != home.folder("debian") == home.folder("debian", "4.3")
    assert root_of(home, "4.0").name == "rabbitmq-4.0-trixie"
    assert root_of(home).name == "rabbitmq-4.3-forky"
    with pytest.raises(Unavailable, match=r"no packages of RabbitMQ 4\.1, only of 4\.0 and 4\.3"):
        root_of(home, "4.1")


def test_an_older_rabbitmq_gets_the_plugin_that_replacing_a_queue_takes() -> None:
    assert plugins(None) == plugins("4.3") == shared_file("enabled_plugins").read_text()
    assert plugins("4.0").strip().endswith(",rabbitmq_sharding].")


def test_a_state_knows_its_series_and_one_of_before_there_was_a_choice_is_read(home: Home) -> None:
    state = dataclasses.replace(state_of(None), series="4.0", version="4.0.5")
    save(home, state)
    assert load(home) == state
    assert [state.is_of(series) for series in (None, "4.0", "4.3")] == [True, True, False]
    old = json.loads(home.state_file.read_text())
    del old["series"]
    home.state_file.write_text(json.dumps(old))
    assert load(home) == dataclasses.replace(state, series=None)
    home.state_file.write_text(json.dumps({**old, "series": "3.13"}))
    with pytest.raises(LocalNodeError, match="unknown series"):
        load(home)


def test_without_any_engine_that_is_said(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from broker.local.engine import Engine

    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unavailable, match="neither docker nor podman"):
        Engine().prepare(home, lambda text, fraction=None: None)
