"""Starts daemons of one kind, lets them run what waits, and reads the ledger."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from benchmarks.consumers.accounts import Accounts
from benchmarks.consumers.place import (
    CELERY_QUEUE,
    DEAD_QUEUE,
    PREFETCH,
    QUEUE,
    SLOTS,
    URL,
)
from benchmarks.consumers.workers import LOGLEVEL
from benchmarks.method import PYTHON, Bench, Ledger, Meter, ready, started, until
from benchmarks.method.processor import family, processes, resident_mib
from benchmarks.scaling.gate import Gates
from benchmarks.scaling.place import TOPOLOGY, daemon
from broker.connection import Address

Kind = Literal["rabbitry", "Celery"]
QUEUES: Mapping[Kind, str] = {"rabbitry": QUEUE, "Celery": CELERY_QUEUE}
TIMEOUT_S = 120.0
# Without a job for so long, whatever is left is taken for lost.
STUCK_S = 60.0
END_S = 60.0
LOOK_S = 0.02
# Memory is looked at so often; and, where there are many processes, so that looking takes no more
# than a twentieth of a core.
MEMORY_EVERY_S = 0.2
LOOKS_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What running some jobs took.

    Attributes:
        jobs: how many.
        seconds: of the clock, from when all daemons had jobs to the last.
        client_s: of a processor, by all daemons.
        broker_s: of a processor, by RabbitMQ; None where it cannot be seen.
        highest_mib: memory of all daemons' processes together, at its highest, pages that
            they share counted once.
    """

    jobs: int
    seconds: float
    client_s: float
    broker_s: float | None
    highest_mib: float


class Daemons:
    """Some daemons that consume one queue.

    Attributes:
        queue: that they consume.
    """

    def __init__(
        self,
        bench: Bench,
        address: Address,
        kind: Kind,
        folder: Path,
        *,
        jobs: int,
        prefetch: int,
    ) -> None:
        """Prepare what they are told; nothing is started.

        Args:
            bench: of this run.
            address: of the virtual host.
            kind: whose.
            folder: where their logs and accounts may be.
            jobs: how many they will run.
            prefetch: how many messages each holds ahead.
        """
        self.queue = QUEUES[kind]
        self._bench = bench
        self._address = address
        self._kind = kind
        self._prefetch = prefetch
        self._jobs = jobs
        self._folder = folder / uuid.uuid4().hex
        self._folder.mkdir()
        self._accounts = Accounts(self._folder / "accounts", jobs)
        self._gates = Gates(self._folder / "gates")
        self._processes: list[subprocess.Popen[bytes]] = []

    @contextmanager
    def running(self, count: int) -> Iterator[Self]:
        """Run so many daemons; afterwards each job has to have been run once.

        Raises:
            SystemExit: a job was lost, is left, is dead or was run twice; or a daemon does
                not end.
        """
        with ExitStack() as stack:
            for number in range(count):
                command, environment = self._command(number)
                log = self._folder / f"{number}.log"
                self._processes.append(
                    stack.enter_context(started(command, log=log, environment=environment))
                )
            yield self
            self._end()
        done, twice = self._accounts.done_and_twice()
        Ledger(
            published=self._jobs,
            done=done,
            waiting=ready(self._address, self.queue),
            dead=ready(self._address, DEAD_QUEUE),
            twice=twice,
        ).check(f"{count} x {self._kind}")

    def run(self, job: str, count: int) -> Ran:
        """Let the daemons run so many jobs, which wait in the queue or at their gate.

        Args:
            job: its name.
            count: how many.
        """
        slots = len(self._processes) * SLOTS
        until(
            lambda: self._gates.waiting(job) >= slots and self._alive(),
            f"a job in each of {slots} slots",
            timeout_s=TIMEOUT_S,
        )
        before = self._accounts.seen()
        pids = [process.pid for process in self._processes]
        meter = Meter(self._bench.rabbitmq.pid, *pids)
        meter.start()
        self._gates.open(job)
        highest = self._wait(before + count, pids)
        meter.stop()
        return Ran(
            jobs=count,
            seconds=meter.seconds,
            client_s=meter.client_s,
            broker_s=meter.broker_s,
            highest_mib=max(highest, meter.resident_mib),
        )

    def _wait(self, count: int, pids: list[int]) -> float:
        """Wait until so many jobs were run; return the memory at its highest."""
        highest, look_at, seen, moved = 0.0, 0.0, -1, time.monotonic()
        while (now_seen := self._accounts.seen()) < count:
            now = time.monotonic()
            if now_seen > seen:
                seen, moved = now_seen, now
            elif now - moved > STUCK_S:
                raise SystemExit(
                    f"{self._kind}: {now_seen:,} of {count:,} jobs were run, and none for"
                    f" {STUCK_S:g} s"
                )
            if now > look_at:
                self._alive()
                highest = max(highest, _memory_mib(pids))
                ended = time.monotonic()
                look_at = ended + max(MEMORY_EVERY_S, (ended - now) / LOOKS_SHARE)
            time.sleep(LOOK_S)
        return highest

    def _alive(self) -> bool:
        for process in self._processes:
            if process.poll() is not None:
                raise SystemExit(f"a daemon of {self._kind} ended by itself")
        return True

    def _end(self) -> None:
        # All at once: they need not wait for one another.
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + END_S
        for process in self._processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise SystemExit(
                    f"a daemon of {self._kind} did not end within {END_S:g} s"
                ) from None

    def _command(self, number: int) -> tuple[tuple[str, ...], Mapping[str, str]]:
        told = {**self._accounts.environment, **self._gates.environment}
        if self._kind == "rabbitry":
            topology = self._folder / "topology.yaml"
            # JSON is YAML.
            topology.write_text(json.dumps(TOPOLOGY))
            run = (*PYTHON, "rabbitry", "worker", "run", daemon(self._prefetch))
            return (*run, "--loglevel", LOGLEVEL), {
                **told,
                "RABBITRY_TOPOLOGY": str(topology),
                "RABBITRY_URL": self._address.url,
                "RABBITRY_MANAGEMENT_URL": self._address.management_url,
            }
        run = (*PYTHON, "celery", "-A", "benchmarks.scaling.jobs:celery_app", "worker")
        # A name of its own: a second worker of the same name is refused its control queue.
        names = ("-Q", CELERY_QUEUE, "-n", f"scale{number}@%h")
        return (*run, *names, "-P", "prefork", "-c", str(SLOTS), "--loglevel", LOGLEVEL), {
            **told,
            URL: self._address.url,
            PREFETCH: str(self._prefetch),
        }


def _memory_mib(pids: list[int]) -> float:
    table = processes()
    return sum(resident_mib(each) for pid in pids for each in family(table, pid))
