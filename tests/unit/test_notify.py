"""What a daemon tells systemd, on sockets of the test's own."""

from __future__ import annotations

import configparser
import os
import socket
import threading
import uuid
from pathlib import Path

import pytest

from consumers.notify import Notifier, without_systemd

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "rabbitmq" / "rabbitry-worker@.service"


@pytest.fixture(params=["path", "abstract"])
def listening(request, tmp_path):
    """A socket, and its address as systemd writes it."""
    if request.param == "path":
        given = bound = str(tmp_path / "notify")
    else:
        name = f"rabbitry-{uuid.uuid4().hex}"
        given, bound = f"@{name}", f"\0{name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(bound)
        sock.settimeout(5)
        yield sock, given


def test_it_tells_states_a_line_each(listening) -> None:
    sock, address = listening
    Notifier({"NOTIFY_SOCKET": address}).tell(READY=1, STATUS="consumes jobs.high")
    assert sock.recv(4096) == b"READY=1\nSTATUS=consumes jobs.high"


def test_it_says_that_it_is_alive_while_it_is(listening) -> None:
    sock, address = listening
    asked = threading.Event()

    def is_alive() -> bool:
        alive = not asked.is_set()
        asked.set()
        return alive

    notifier = Notifier(
        {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())}
    )
    assert notifier.watchdog_s == 0.02
    notifier.watch(is_alive)
    assert sock.recv(4096) == b"WATCHDOG=1"
    sock.settimeout(0.1)
    with pytest.raises(TimeoutError):
        sock.recv(4096)


def test_a_watchdog_of_another_process_is_none_of_its_own() -> None:
    environ = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}
    assert Notifier(environ, pid=2).watchdog_s is None
    assert Notifier(environ, pid=1).watchdog_s == 0.02
    assert without_systemd({**environ, "HOME": "/"}) == {"HOME": "/"}


def test_nobody_who_listens_is_no_trouble(tmp_path) -> None:
    Notifier({}).tell(READY=1)
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell(READY=1)


def test_the_unit_gives_a_worker_the_time_that_it_takes() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read_string(UNIT.read_text())
    service = unit["Service"]
    assert service["Type"] == "notify"
    # To all its processes the signal would end the jobs that it is to finish.
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) > 25 + 1
    assert service["ExecStart"].split()[1:4] == ["worker", "run", "%i"]
