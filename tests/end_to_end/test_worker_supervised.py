"""Several workers under one command: begun again, told to stop, never left behind."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from producers.publisher import Publisher
from tests.processes import children_of, is_alive
from tests.provision import consumers_of, ready_in
from tests.waiting import until


@pytest.fixture
def both(provisioned) -> None:
    text = provisioned.path.read_text()
    provisioned.path.write_text(
        text.replace("concurrency: 2}", "concurrency: 1, grace: 2s}")
        + "  tiny: {queues: [jobs.tiny], concurrency: 1, grace: 2s}\n"
    )


@pytest.fixture
def supervised(both, start, tmp_path):
    """Two workers, of which the supervisor knows that both have begun."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(30)
        daemon = start(
            *("env", f"NOTIFY_SOCKET={path}"),
            *(sys.executable, "-m", "rabbitry", "worker", "run", "--all"),
        )
        assert sock.recv(4096).startswith(b"READY=1")
    return daemon


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def worker_of(pid: int, name: str) -> int:
    (found,) = [child for child in children_of(pid) if f"worker run {name} " in command_of(child)]
    return found


def test_one_that_dies_begins_again_and_all_stop_together(provisioned, supervised) -> None:
    first = worker_of(supervised.process.pid, "normal")
    other = worker_of(supervised.process.pid, "tiny")
    os.kill(first, signal.SIGKILL)
    until(
        lambda: "worker normal ended with code 137" in supervised.log, timeout_s=20, what="a word"
    )
    until(
        lambda: len(children_of(supervised.process.pid)) == 2, timeout_s=20, what="the next process"
    )
    until(
        lambda: consumers_of(provisioned.address, "jobs.normal") == 1,
        timeout_s=30,
        what="it to consume again",
    )
    assert worker_of(supervised.process.pid, "normal") != first
    assert worker_of(supervised.process.pid, "tiny") == other
    # A job that outlasts the grace goes back, and all end in time.
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("demo.sleep", seconds=60.0).wait()
    until(lambda: ready_in(provisioned.address, "jobs.normal") == 0, timeout_s=20, what="it to run")
    began = time.monotonic()
    assert supervised.stop() == 0, supervised.log
    # Each worker within a second after its grace; the rest is this machine's.
    assert 2 <= time.monotonic() - began < 2 + 4
    assert ready_in(provisioned.address, "jobs.normal") == 1
    assert consumers_of(provisioned.address, "jobs.tiny") == 0


def test_what_is_told_to_stop_before_it_has_begun_has_stopped(both, start) -> None:
    daemon = start(sys.executable, "-m", "rabbitry", "worker", "run", "--all", queue=None)
    until(lambda: len(children_of(daemon.process.pid)) == 2, timeout_s=20, what="both processes")
    assert daemon.stop() == 0, daemon.log


def test_none_outlives_a_supervisor_that_is_killed(provisioned, supervised) -> None:
    workers = children_of(supervised.process.pid)
    everybody = workers + [child for worker in workers for child in children_of(worker)]
    assert len(everybody) == 4
    os.kill(supervised.process.pid, signal.SIGKILL)
    supervised.process.wait()
    until(lambda: not any(map(is_alive, everybody)), timeout_s=15, what="all to end")
    assert consumers_of(provisioned.address, "jobs.normal") == 0


def test_what_keeps_one_from_starting_ends_all(both, provisioned, start) -> None:
    text = provisioned.path.read_text()
    provisioned.path.write_text(text.replace("max_length: 3", "max_length: 4"))
    daemon = start(sys.executable, "-m", "rabbitry", "worker", "run", "normal", "tiny", queue=None)
    assert daemon.process.wait(60) == 3
    assert "max-length is 3, and the file says 4" in daemon.log
    assert "worker tiny cannot begin (exit code 3): all are stopped" in daemon.log


def test_several_drain_and_end(both, provisioned, start) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        for number in range(10):
            publisher.publish("demo.echo", number).wait()
    daemon = start(
        *(sys.executable, "-m", "rabbitry", "worker", "run", "--all", "--one-shot"), queue=None
    )
    assert daemon.process.wait(60) == 0, daemon.log
    assert ready_in(provisioned.address, "jobs.normal") == 0
