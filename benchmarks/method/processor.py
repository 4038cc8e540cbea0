"""Processor seconds and memory of processes, from /proc: cores are shared with the broker."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

PROC = Path("/proc")
_CPUCLOCK_SCHED = 2
_TICKS = os.sysconf("SC_CLK_TCK")
_LISTENING = "0A"
ERLANG = "beam.smp"


@dataclass(frozen=True, slots=True)
class Process:
    """What /proc tells of a process: its parent, and the seconds of its ended children."""

    parent: int
    inherited_s: float


class Meter:
    """Measures what a contender and RabbitMQ take of the processor between two moments.

    A context manager, or `start` and `stop`. What ended in between counts where its parent has
    waited for it, as `subprocess` does.
    """

    def __init__(self, rabbitmq: int | None, *trees: int, alone: Iterable[int] = ()) -> None:
        """Name the processes.

        Args:
            rabbitmq: the Erlang VM's, None where it cannot be seen; see `RabbitMQ.pid`.
            trees: processes that count with all that descends from them; without any, and with
                none alone, this one.
            alone: processes that count without their children.
        """
        self._rabbitmq = rabbitmq
        self._alone = tuple(alone)
        self._trees = trees or (() if self._alone else (os.getpid(),))
        self._began = (0.0, 0.0, 0.0)
        self.seconds = 0.0
        self.client_s = 0.0
        self.broker_s: float | None = None
        self.resident_mib = 0.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to measure."""
        client_s, broker_s = self._taken()
        # Last: to look through /proc takes milliseconds, which are nobody's.
        self._began = (time.perf_counter(), client_s, broker_s)

    def stop(self) -> None:
        """End: `seconds` of the clock, `client_s` and `broker_s` of the processor, and memory.

        `resident_mib` is what the contender's processes have at this moment, pages that they
        share counted once; see `highest_mib` for one process's peak.
        """
        ended, own_s = time.perf_counter(), time.process_time()
        client_s, broker_s = self._taken()
        # Of this process, where it is one of those that are measured.
        looked_s = time.process_time() - own_s
        began, client_began, broker_began = self._began
        self.seconds = ended - began
        self.broker_s = None if self._rabbitmq is None else broker_s - broker_began
        table = processes()
        pids = {*self._alone, *(each for tree in self._trees for each in family(table, tree))}
        self.client_s = client_s - client_began - (looked_s if os.getpid() in pids else 0.0)
        self.resident_mib = sum(resident_mib(each) for each in pids)

    def _taken(self) -> tuple[float, float]:
        table = processes()
        client_s = sum(_tree_s(table, each) for each in self._trees)
        client_s += sum(_own_s(each) for each in self._alone)
        return client_s, 0.0 if self._rabbitmq is None else _tree_s(table, self._rabbitmq)


def processes() -> dict[int, Process]:
    """Return all processes, by their id."""
    found = {}
    for each in PROC.iterdir():
        if not each.name.isdigit():
            continue
        try:
            fields = (each / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        found[int(each.name)] = Process(int(fields[1]), sum(map(int, fields[13:15])) / _TICKS)
    return found


def family(table: Mapping[int, Process], pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    below: dict[int, list[int]] = {}
    for each, process in table.items():
        below.setdefault(process.parent, []).append(each)
    found, waiting = [], [pid] if pid in table else []
    while waiting:
        each = waiting.pop()
        found.append(each)
        waiting += below.get(each, [])
    return found


def resident_mib(pid: int) -> float:
    """Return a process's memory, each page that several have divided among them; 0 if it ended."""
    for name, key in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        found = _kib(pid, name, key)
        if found:
            return found / 1024
    return 0.0


def highest_mib(pid: int) -> float:
    """Return the most memory that a process ever had, shared pages counted in full."""
    return _kib(pid, "status", "VmHWM:") / 1024


def rabbitmq_pid(port: int, os_pid: int) -> int | None:
    """Find the Erlang VM that serves a RabbitMQ, on this machine, also in a container.

    Args:
        port: that it listens at.
        os_pid: its process id as RabbitMQ knows it, which a container numbers anew.

    Returns:
        Its process id here; None where it is on another machine, or may not be seen.
    """
    machines = dict(_erlang_machines())
    listening = _listening(port)
    for pid in machines:
        if listening & _sockets(pid):
            return pid
    named = [pid for pid, numbers in machines.items() if numbers[-1] == os_pid]
    return named[0] if len(named) == 1 else None


def is_here(host: str) -> bool:
    """Say whether a host is this machine."""
    try:
        found = {each[4][0] for each in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return any(str(each).startswith("127.") or each == "::1" for each in found)


def _tree_s(table: Mapping[int, Process], pid: int) -> float:
    return sum(_own_s(each) + table[each].inherited_s for each in family(table, pid))


def _own_s(pid: int) -> float:
    """Return the seconds of all threads of a process, to the nanosecond; 0 if it ended."""
    try:
        # The clock of a process, as clock_getcpuclockid(3) names it.
        return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return 0.0


def _kib(pid: int, name: str, key: str) -> int:
    try:
        lines = (PROC / str(pid) / name).read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(key)), 0)


def _erlang_machines() -> Iterable[tuple[int, list[int]]]:
    for each in PROC.iterdir():
        if not each.name.isdigit():
            continue
        try:
            lines = (each / "status").read_text().splitlines()
        except OSError:
            continue
        if lines and lines[0].split()[-1] == ERLANG:
            numbers = next((line for line in lines if line.startswith("NSpid:")), f": {each.name}")
            yield int(each.name), [int(number) for number in numbers.split()[1:]]


def _listening(port: int) -> set[str]:
    """Return the sockets that listen at a port, as /proc names them."""
    found = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found


def _sockets(pid: int) -> set[str]:
    found = set()
    try:
        for each in (PROC / str(pid) / "fd").iterdir():
            try:
                found.add(str(each.readlink()))
            except OSError:
                continue
    except OSError:
        return set()  # another user's, or ended
    return found
