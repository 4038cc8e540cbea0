"""Workers under faults: a topology whose tasks write down what they do, and the ledger of it."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from broker.connection import Address
from broker.management import Management
from broker.topology import Topology
from producers.publisher import Job, Publisher
from tests.end_to_end.conftest import Daemon
from tests.faults.nodes import Hurt
from tests.letters import ids
from tests.provision import consumers_of, ready_in
from tests.waiting import until

# The limit is so high that only poison reaches it.
WORK = """
version: 1
name: faults
vhost: {name: unused, default_queue_type: quorum}
exchanges:
  jobs: {type: topic}
  jobs.dead: {type: topic}
queues:
  jobs.work:
    bindings: [{exchange: jobs, routing_key: "work.#"}]
    retry: {delay: 100ms, max_delay: 200ms, limit: 8}
    dead_letter: {exchange: jobs.dead}
    overflow: reject-publish
    consumer_timeout: 5m
  jobs.dead:
    bindings: [{exchange: jobs.dead, routing_key: "#"}]
jobs:
  work: {task: "accounted:work", exchange: jobs, routing_key: work.job}
  poison: {task: "accounted:poison", exchange: jobs, routing_key: work.poison}
  fragile: {task: "accounted:fragile", exchange: jobs, routing_key: work.fragile}
workers:
  processes: {queues: [jobs.work], pool: prefork, concurrency: 2, grace: 5s}
  threads: {queues: [jobs.work], pool: threads, concurrency: 2, grace: 5s}
  green: {queues: [jobs.work], pool: gevent, concurrency: 2, grace: 5s}
  controlled: {queues: [jobs.work], concurrency: 2, grace: 5s, remote_control: true}
"""

# A line is written at once and whole (O_APPEND): whoever is killed leaves no half of one.
ACCOUNTED = """
import json, os, signal, time
from consumers.job import current_job, job

FILE = os.open(os.environ["ACCOUNT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

def note(event):
    current = current_job()
    line = {
        "event": event, "id": current.id, "attempt": current.attempt, "pid": os.getpid(),
        "parent": os.getppid(), "redelivered": current.redelivered, "at": time.time(),
    }
    os.write(FILE, (json.dumps(line) + "\\n").encode())

@job("work")
def work(seconds: float):
    note("began")
    time.sleep(seconds)
    note("done")

@job("fragile", give_up_on=[LookupError])
def fragile(seconds: float):
    note("began")
    if os.path.exists("broken"):
        raise KeyError("nobody has mended it")
    note("done")

@job("poison")
def poison():
    note("began")
    os.kill(os.getpid(), signal.SIGKILL)
"""

QUEUE, DEAD = "jobs.work", "jobs.dead"


@dataclass(frozen=True, slots=True)
class Line:
    """What a task wrote down: it began, or it is done."""

    event: str
    id: str
    attempt: int
    pid: int
    parent: int
    redelivered: bool
    at: float


@dataclass(frozen=True)
class Ledger:
    """What was published, and where each of it is.

    Attributes:
        published: the ids that RabbitMQ has confirmed.
        runs: every line of the tasks' account.
        waiting: the ids in the queue, as often as they lie there.
        dead: the ids in the dead-letter queue, likewise.
        deleted: the ids of what was in a queue when an operator deleted it.
    """

    published: frozenset[str]
    runs: tuple[Line, ...]
    waiting: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    deleted: frozenset[str] = frozenset()

    @property
    def done(self) -> Counter[str]:
        """The ids of the jobs that were done, as often as they were."""
        return Counter(line.id for line in self.runs if line.event == "done")

    @property
    def again(self) -> set[str]:
        """The ids of what was done, or buried, and came or is to come once more."""
        done = self.done
        return {
            *(id for id, times in done.items() if times > 1 or self.waiting[id] or self.dead[id]),
            *(id for id, times in self.dead.items() if times > 1),
        }

    @property
    def counted(self) -> set[str]:
        """The ids of jobs of which RabbitMQ has counted a failed attempt."""
        return {line.id for line in self.runs if line.attempt > 1}

    def problems(self, *, again: int = 0) -> list[str]:
        """Return what cannot be explained.

        Args:
            again: how many jobs may have been done and come once more, each time redelivered.
        """
        done, found = self.done, []
        for id in sorted(self.published):
            if not (done[id] or self.waiting[id] or self.dead[id] or id in self.deleted):
                found.append(f"published, and neither done nor waiting nor dead: {id}")
        for what, there in (("done", done), ("waiting", self.waiting), ("dead", self.dead)):
            found += [
                f"{what}, and nobody published it: {id}" for id in there.keys() - self.published
            ]
        found += [f"waits {times} times: {id}" for id, times in self.waiting.items() if times > 1]
        found += [f"waits and is dead: {id}" for id in self.waiting.keys() & self.dead.keys()]
        begun: dict[str, list[Line]] = defaultdict(list)
        for line in self.runs:
            if line.event == "began":
                begun[line.id].append(line)
        for id, lines in begun.items():
            first_times = [line for line in lines if not line.redelivered]
            if len(first_times) > 1:
                found.append(f"begun {len(first_times)} times as if for the first: {id}")
        if len(self.again) > again:
            some = ", ".join(sorted(self.again)[:5])
            found.append(f"{len(self.again)} jobs over came once more, not {again} at most: {some}")
        return found

    def summary(self) -> str:
        """Return it in one line."""
        return (
            f"published {len(self.published)} = done {len(self.done)} + waiting"
            f" {len(self.waiting)} + dead {len(self.dead)} + deleted {len(self.deleted)};"
            f" done again {len(self.again)}, counted attempts {len(self.counted)}"
        )


@dataclass
class Field:
    """A topology in force on a RabbitMQ that may be hurt, and workers on it."""

    hurt: Hurt
    topology: Topology
    path: Path
    address: Address
    folder: Path
    environment: Mapping[str, str]
    published: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    doomed: set[str] = field(default_factory=set)
    daemons: list[Daemon] = field(default_factory=list)
    as_user: Address | None = None

    @property
    def account(self) -> Path:
        return self.folder / "account"

    def publish(self, count: int, *, seconds: Any, job: str = "work") -> list[str]:
        """Publish so many jobs more, all confirmed; return their ids."""
        first = len(self.published)
        arguments = {} if job in ("poison", "sends") else {"seconds": seconds}
        jobs = [Job(job, (), arguments, id=f"{job}-{first + n:06}") for n in range(count)]
        with Publisher(self.topology, self.address.url) as publisher:
            for receipt in publisher.publish_many(jobs):
                receipt.wait()
        self.published |= {each.id for each in jobs if each.id}
        return [str(each.id) for each in jobs]

    def start(
        self,
        worker: str = "processes",
        *,
        prefix: Iterable[str] = (),
        options: Iterable[str] = (),
        address: Address | None = None,
    ) -> Daemon:
        """Start a worker; wait until it consumes."""
        others = sum(each.process.poll() is None for each in self.daemons)
        # RabbitMQ may not have noticed yet that one is gone.
        until(lambda: consumers_of(self.address, QUEUE) == others, 30, "no more consumers")
        daemon = Daemon(
            [*prefix, sys.executable, "-m", "rabbitry", "worker", "run", worker, *options],
            env={**self.worker_environment(), "RABBITRY_URL": (address or self.address).url},
            log=self.folder / f"worker-{len(self.daemons)}.log",
            cwd=self.folder,
        )
        self.daemons.append(daemon)

        def ready() -> bool:
            assert daemon.process.poll() is None, daemon.log
            return consumers_of(self.address, QUEUE) == others + 1

        until(ready, timeout_s=40, what="the worker to consume")
        return daemon

    def worker_environment(self) -> dict[str, str]:
        """Return what a command needs to know, but for where RabbitMQ is."""
        named = {"RABBITRY_TOPOLOGY": str(self.path), "ACCOUNT": str(self.account)}
        return {**os.environ, **self.environment, **named}

    def lines(self) -> list[Line]:
        """Return what the tasks have written so far."""
        if not self.account.exists():
            return []
        # The last line may be half there: it is being written.
        lines = self.account.read_text().split("\n")[:-1]
        return [Line(**json.loads(line)) for line in lines if line]

    def wait_done(self, what: Callable[[set[str]], bool], timeout_s: float = 60) -> None:
        """Wait until what is asked for holds of the ids that are done."""
        until(
            lambda: what({line.id for line in self.lines() if line.event == "done"}),
            timeout_s=timeout_s,
            what=f"jobs to be done; {self.said()}",
        )

    def wait_all_done(self, timeout_s: float = 90) -> None:
        """Wait until every published job is done, but for those deleted and those doomed."""
        expected = self.published - self.deleted - self.doomed
        self.wait_done(lambda done: done >= expected, timeout_s)

    def close(self) -> Ledger:
        """Wait until RabbitMQ has everything back that nobody works on, and add it up."""
        ledger = self._ledger()

        def settled() -> bool:
            nonlocal ledger
            # What is unacknowledged or set aside for its next attempt is in no list.
            ledger = self._ledger()
            gone = ledger.published - ledger.deleted - ledger.done.keys()
            return not (gone - ledger.waiting.keys() - ledger.dead.keys()) and not self._hidden()

        until(settled, timeout_s=40, what=f"all to be somewhere: {ledger.summary()}")
        return ledger

    def _ledger(self) -> Ledger:
        return Ledger(
            frozenset(self.published),
            tuple(self.lines()),
            Counter(ids(self.address, QUEUE)),
            Counter(ids(self.address, DEAD)),
            frozenset(self.deleted),
        )

    def _hidden(self) -> bool:
        """Say whether a queue holds more than is ready; management may be seconds late."""
        with Management(self.address) as management:
            found = management.get("queues", self.address.vhost_name, QUEUE)
        return bool(found.get("messages", 0) != ready_in(self.address, QUEUE))

    def said(self) -> str:
        """Return the end of each worker's log."""
        return "\n".join(daemon.log[-2000:] for daemon in self.daemons)

    def end(self) -> None:
        """End all workers, however they are."""
        for daemon in self.daemons:
            daemon.end()


def check(ledger: Ledger, *, again: int = 0) -> None:
    """Print a ledger and see that it adds up."""
    sys.stdout.write(f"\n{ledger.summary()}\n")
    problems = ledger.problems(again=again)
    assert not problems, "\n".join([ledger.summary(), *problems[:20]])


def changed(line: Line, **changes: Any) -> Line:
    """Return a line with something else in it."""
    return replace(line, **changes)
