"""Growth with the jobs: a thousand to a million are published, wait, and are run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.consumers.place import WIDE
from benchmarks.method import Bench, Run
from benchmarks.method.processor import resident_mib
from benchmarks.method.rounds import ROUNDS
from benchmarks.publishers import SIZE_BYTES, Taken
from benchmarks.scaling.daemons import QUEUES, Daemons, Kind, Ran
from benchmarks.scaling.filling import fill, order
from benchmarks.scaling.place import BATCH, BATCHED, BATCHES, NOOP
from benchmarks.scaling.sheets import Line, Sheets
from broker.connection import Address

PUBLISHED, PUBLISHER = "scale.published", "scale.publisher"
CONSUMED, WORKER, RABBITMQ = "scale.consumed", "scale.worker", "scale.rabbitmq"
THOUSAND, TEN_THOUSAND, HUNDRED_THOUSAND, MILLION = 1_000, 10_000, 100_000, 1_000_000
OURS, BY_BATCHES = "rabbitry", f"batches of {BATCH}"
OUTSIDE = "left out of the small version"
# Memory does not vary, and a guard has not much time.
SMALL_ROUNDS = 1
# No run is begun that would take longer, by the first one with a tenth of the jobs.
LONGEST_S = 180.0
TOO_LONG = f"would take more than {LONGEST_S:g} s here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How jobs are run.

    Attributes:
        kind: whose daemon.
        job: its name.
        prefetch: how many messages are held ahead.
        counts: how many jobs wait, in turn: no more than can be run in a minute or two.
        small: the same for the small version.
    """

    kind: Kind
    job: str
    prefetch: int
    counts: tuple[int, ...]
    small: tuple[int, ...] = ()


SINGLE = (THOUSAND, TEN_THOUSAND, HUNDRED_THOUSAND)
WAYS = {
    BY_BATCHES: Way(
        kind="rabbitry",
        job=BATCHED,
        prefetch=BATCHES,
        counts=(TEN_THOUSAND, HUNDRED_THOUSAND, MILLION),
        small=(TEN_THOUSAND, HUNDRED_THOUSAND),
    ),
    OURS: Way(kind="rabbitry", job=NOOP, prefetch=WIDE, counts=SINGLE),
    "Celery": Way(kind="Celery", job=NOOP, prefetch=WIDE, counts=SINGLE),
}


def named(who: str, count: int) -> str:
    """Return the name of a contender with so many jobs."""
    return f"{who}: {count:,} jobs"


def measure(bench: Bench, address: Address, folder: Path) -> None:
    """Measure publisher, worker and RabbitMQ, in jobs a second and in MiB."""
    # From few to many in the first round: RabbitMQ keeps for a while what it has needed once.
    chosen = sorted(
        (count, name)
        for name, way in WAYS.items()
        for count in (way.small if bench.small else way.counts)
    )
    backlog = _Backlog(bench=bench, address=address, folder=folder)
    runners = {named(name, count): partial(backlog.run, name, count) for count, name in chosen}
    rounds = bench.sized(ROUNDS, SMALL_ROUNDS)
    _show(bench, Sheets(runners, rounds=rounds), rounds=rounds)


def _show(bench: Bench, sheets: Sheets, *, rounds: int) -> None:
    publishing = [named(OURS, count) for count in (THOUSAND, *WAYS[BY_BATCHES].counts)]
    running = [named(who, count) for who, way in WAYS.items() for count in way.counts]
    show = partial(bench.measure, warm_up=False)
    notes = {"argument_bytes": SIZE_BYTES}
    why = OUTSIDE if bench.small else TOO_LONG
    for table, title, unit, who, names in (
        (PUBLISHED, "published jobs a second, by how many", "jobs/s", OURS, publishing),
        (PUBLISHER, "memory of a publisher at its highest", "MiB", OURS, publishing),
        (CONSUMED, "no-op jobs a second, by how many wait", "jobs/s", BY_BATCHES, running),
        (WORKER, "memory of a worker at its highest", "MiB", BY_BATCHES, running),
        (RABBITMQ, "memory of RabbitMQ while so many jobs wait", "MiB", "RabbitMQ", []),
    ):
        found = sheets.of(table)
        if not found:
            continue  # RabbitMQ's process cannot be seen
        show(
            table,
            found,
            title=title,
            unit=unit,
            better="less" if unit == "MiB" else "more",
            # They are in the order in which they were run.
            first=[each for each in found if each.startswith(f"{who}: ")][-1],
            missing={name: why for name in names if name not in found},
            notes=notes,
            rounds=1 if table == RABBITMQ else rounds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Backlog:
    """Fills a queue and has it emptied.

    Attributes:
        bench, address, folder: of this run.
        took_s: seconds of the first run, by contender.
        weighed: with how many jobs it is known what memory RabbitMQ needs.
    """

    bench: Bench
    address: Address
    folder: Path
    took_s: dict[str, float] = field(default_factory=dict)
    weighed: set[int] = field(default_factory=set)

    def run(self, name: str, count: int) -> Iterator[Line]:
        """Publish so many jobs and run them, one way, unless that would take too long."""
        way, pid = WAYS[name], self.bench.rabbitmq.pid
        if 10 * self.took_s.get(named(name, count // 10), 0) > LONGEST_S:
            return
        queue = QUEUES[way.kind]
        given = order(self.address, way.job, queue, count, size_bytes=SIZE_BYTES, rabbitmq=pid)
        taken = fill(self.address, given)
        # Publishing is the same in all ways.
        if name == (BY_BATCHES if count in WAYS[BY_BATCHES].counts else OURS):
            yield from _filled(taken, count)
        if count not in self.weighed:
            self.weighed.add(count)
            if pid is not None:
                memory = Run(value=resident_mib(pid))
                yield Line(table=RABBITMQ, who=named("RabbitMQ", count), run=memory)
        prepared = Daemons(
            self.bench, self.address, way.kind, self.folder, jobs=count, prefetch=way.prefetch
        )
        with prepared.running(1) as daemons:
            ran = daemons.run(way.job, count)
        self.took_s.setdefault(named(name, count), taken.seconds + ran.seconds)
        yield from _emptied(ran, named(name, count))


def _filled(taken: Taken, count: int) -> Iterator[Line]:
    who = named(OURS, count)
    took = partial(Run, jobs=count, client_s=taken.client_s, broker_s=taken.broker_s)
    yield Line(table=PUBLISHED, who=who, run=took(value=count / taken.seconds))
    if taken.highest_mib is not None:
        yield Line(table=PUBLISHER, who=who, run=Run(value=taken.highest_mib))


def _emptied(ran: Ran, who: str) -> Iterator[Line]:
    took = partial(Run, jobs=ran.jobs, client_s=ran.client_s, broker_s=ran.broker_s)
    yield Line(table=CONSUMED, who=who, run=took(value=ran.jobs / ran.seconds))
    yield Line(table=WORKER, who=who, run=Run(value=ran.highest_mib))
