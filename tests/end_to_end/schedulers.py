"""Schedulers as processes, and the ledger of their ticks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from broker.connection import Address, connect
from broker.topology import Topology
from consumers.schedule.report import leadership
from tests.provision import ready_in
from tests.waiting import until

FILE = """
version: 1
name: ticking
vhost: {name: unused, default_queue_type: quorum}
exchanges:
  jobs: {type: topic}
queues:
  jobs.normal: {bindings: [{exchange: jobs, routing_key: "#"}]}
jobs:
  demo.heartbeat: {exchange: jobs, routing_key: normal.demo.heartbeat}
schedules:
  second: {job: demo.heartbeat, every: 1s, catch_up: all}
"""
QUEUE = "jobs.normal"


@dataclass(frozen=True)
class Ledger:
    """What was published of one schedule of a tick a second.

    Attributes:
        due: when each message fell due, seconds since 1970-01-01 UTC, in the queue's order.
    """

    due: tuple[int, ...]

    @property
    def missing(self) -> list[int]:
        """The seconds between the first tick and the last that have none."""
        there = set(self.due)
        return [each for each in range(min(there), max(there) + 1) if each not in there]

    @property
    def again(self) -> dict[int, int]:
        """How often those were published that were published more than once."""
        return {due: count for due, count in Counter(self.due).items() if count > 1}


class Schedulers:
    """Schedulers on one topology in force.

    Args:
        topology, path: the file.
        address: where RabbitMQ is.
        env: of the processes; those that start later have what is added to it.
        folder: for their logs.
    """

    def __init__(
        self,
        topology: Topology,
        path: Path,
        address: Address,
        *,
        env: Mapping[str, str],
        folder: Path,
    ) -> None:
        self.topology = topology
        self.address = address
        self.env = {**env, "RABBITRY_TOPOLOGY": str(path)}
        self._folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, count: int = 1) -> None:
        """Start some."""
        for _ in range(count):
            log = self._folder / f"scheduler-{len(self.processes)}.log"
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "rabbitry", "schedule", "run"],
                    env=self.env,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            self.processes.append(process)

    def log(self, process: subprocess.Popen[bytes]) -> str:
        """Return what one of them has logged."""
        return (self._folder / f"scheduler-{self.processes.index(process)}.log").read_text()

    def standing_by(self) -> list[subprocess.Popen[bytes]]:
        """Return those that run."""
        return [process for process in self.processes if process.poll() is None]

    def wait_all(self) -> None:
        """Wait until each has a consumer on the queue of the token."""
        until(
            lambda: leadership(self.topology, self.address).schedulers == len(self.standing_by()),
            timeout_s=60,
            what="all schedulers to wait for the lead",
        )

    def leader(self) -> subprocess.Popen[bytes]:
        """Return the one that leads."""

        def found() -> subprocess.Popen[bytes] | None:
            name = leadership(self.topology, self.address).leader or ""
            running = {str(process.pid): process for process in self.standing_by()}
            return running.get(name.rpartition(".")[2])

        return until(found, timeout_s=60, what="a leader")

    def wait_ticks(self, count: int, *, timeout_s: float = 60) -> None:
        """Wait until so many more ticks are in the queue."""
        wanted = ready_in(self.address, QUEUE) + count
        until(
            lambda: ready_in(self.address, QUEUE) >= wanted,
            timeout_s=timeout_s,
            what=f"{count} more ticks",
        )

    def ledger(self) -> Ledger:
        """Take all ticks out of the queue."""
        connection = connect(self.address)
        try:
            due = []
            channel = connection.default_channel
            while (message := channel.basic_get(QUEUE, no_ack=True)) is not None:
                name, _, text = message.properties["message_id"].partition("@")
                assert name == "second"
                due.append(int(datetime.fromisoformat(text).timestamp()))
            return Ledger(tuple(due))
        finally:
            connection.release()

    def end(self) -> None:
        """End them all, however they are."""
        for process in self.standing_by():
            process.kill()
            process.wait()


@contextmanager
def paused(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let a process do nothing for a while."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)
