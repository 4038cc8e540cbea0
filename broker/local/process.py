"""Processes that outlive the command that started them, and how to find them again.

A pid alone names nobody: it is used again. A process is known by its pid and its start
time, and all that belongs to one node or one fetch by a marker in its environment, which
children inherit. So what a crash left behind is found without any record of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.errors import LocalNodeError

NODE_MARKER = "RABBITRY_PRIVATE_NODE"
FETCH_MARKER = "RABBITRY_FETCH"

_PROC = Path("/proc")
# Erlang's virtual machine: ends in order on SIGTERM, and the rest of a node goes with it.
_BEAM = "beam.smp"

# A log is set aside at the next start when it has grown beyond this; one older is kept.
_LOG_LIMIT_BYTES = 10_000_000

# Leaves a daemon that is nobody's child, so that it becomes no zombie of a long-lived
# caller; prints its pid. Descriptors 0-2 are its own: `rabbitry broker up | cat` returns.
_DETACH = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'


@dataclass(frozen=True, slots=True)
class Process:
    """A process that cannot be mistaken for a later one.

    Attributes:
        pid: its id.
        started: its start, in clock ticks after the machine's.
    """

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Return the live process of a pid, or None."""
        started = _start_time(pid)
        return None if started is None else cls(pid, started)

    def alive(self) -> bool:
        """Say whether this very process still runs."""
        return _start_time(self.pid) == self.started


def spawn(command: Sequence[str], *, env: Mapping[str, str], log: Path) -> Process:
    """Start a daemon in a session of its own, its output appended to a file.

    Raises:
        LocalNodeError: it ended at once.
    """
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
    shell = shutil.which("sh") or "/bin/sh"
    started = subprocess.run(
        [shell, "-c", _DETACH, "sh", str(log), *command],
        env=dict(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
        cwd="/",
    )
    process = Process.of(int(started.stdout))
    if process is None:
        raise LocalNodeError(f"{command[0]} ended as soon as it was started; see {log}")
    return process


def marked(marker: str, value: str) -> list[int]:
    """Return the pids of all live processes that carry a marker in their environment."""
    wanted = f"{marker}={value}".encode()
    here = _namespace("self")
    found = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue  # gone, or somebody else's
        # Of a container on this machine the host sees the processes too, perhaps with the
        # same home; it is another machine by its UTS namespace.
        if wanted in environment.split(b"\0") and _namespace(entry.name) == here:
            found.append(int(entry.name))
    return sorted(found)


def stop(marker: str, value: str, *, grace_s: float) -> bool:
    """End all processes with a marker and wait until they are gone.

    RabbitMQ's virtual machine is asked first (SIGTERM); what is left when it has gone is
    asked then; what is left after the grace is killed.

    Args:
        grace_s: seconds before SIGKILL.

    Returns:
        Whether there was anything to end.

    Raises:
        LocalNodeError: something survived even that.
    """
    kill_at = time.monotonic() + grace_s
    asked: set[int] = set()
    existed = False
    while pids := marked(marker, value):
        existed = True
        now = time.monotonic()
        if now >= kill_at + 10:
            raise LocalNodeError(f"processes {pids} do not end, not even by SIGKILL; end them")
        beams = [pid for pid in pids if _name(pid) == _BEAM]
        for pid in pids if now >= kill_at else beams or pids:
            if now >= kill_at or pid not in asked:
                asked.add(pid)
                _send(pid, signal.SIGKILL if now >= kill_at else signal.SIGTERM, marker, value)
        time.sleep(0.05)
    return existed


def _send(pid: int, number: signal.Signals, marker: str, value: str) -> None:
    # A descriptor pins the process: between looking and sending the pid cannot change hands.
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        descriptor = os.pidfd_open(pid)
        try:
            if f"{marker}={value}".encode() in (_PROC / str(pid) / "environ").read_bytes():
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def _start_time(pid: int) -> int | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name in parentheses may hold anything, also blanks and parentheses.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _name(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def _namespace(pid: str) -> str:
    try:
        return str((_PROC / pid / "ns" / "uts").readlink())
    except OSError:
        return ""
