"""Growth with the daemons: one to eight of them on one queue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from benchmarks.consumers.place import SLOTS, WIDE
from benchmarks.method import Bench, Run
from benchmarks.method.rounds import ROUNDS
from benchmarks.publishers import SIZE_BYTES
from benchmarks.scaling.daemons import QUEUES, Daemons, Kind, Ran
from benchmarks.scaling.filling import fill, order, publish
from benchmarks.scaling.place import NOOP, PAUSE, PAUSE_S
from benchmarks.scaling.sheets import Line, Sheets
from broker.connection import Address

NOOPS, PAUSES = "scale.workers", "scale.pauses"
COUNTS = (1, 2, 4, 8)
# About a second's work of a machine of two cores.
JOBS: Mapping[Kind, int] = {"rabbitry": 6_000, "Celery": 3_000}
# For each slot.
PAUSES_A_SLOT = 50


def measure(bench: Bench, address: Address, folder: Path) -> None:
    """Measure jobs that do nothing, and jobs that wait, in jobs a second."""
    runners = {
        f"{kind}: {_daemons(count)}": partial(_run, bench, address, folder, kind, count)
        for kind in JOBS
        for count in COUNTS
    }
    sheets = Sheets(runners, rounds=ROUNDS)
    for table, jobs in (
        (NOOPS, "no-op jobs"),
        (PAUSES, f"jobs that wait {1e3 * PAUSE_S:g} ms"),
    ):
        bench.measure(
            table,
            sheets.of(table),
            title=f"{jobs} a second, by the daemons on one queue, {SLOTS} slots each",
            unit="jobs/s",
            first=f"rabbitry: {_daemons(COUNTS[0])}",
            notes={"prefetch of each": WIDE, "argument_bytes": SIZE_BYTES},
            warm_up=False,
        )


def _run(bench: Bench, address: Address, folder: Path, kind: Kind, count: int) -> Iterator[Line]:
    noops, pauses = JOBS[kind], PAUSES_A_SLOT * SLOTS * count
    filled = partial(order, address, queue=QUEUES[kind], size_bytes=SIZE_BYTES)
    fill(address, filled(NOOP, count=noops))
    prepared = Daemons(bench, address, kind, folder, jobs=noops + pauses, prefetch=WIDE)
    with prepared.running(count) as daemons:
        idle = daemons.run(NOOP, noops)
        # They have numbers of their own, after the others.
        publish(filled(PAUSE, count=noops + pauses), begin=noops)
        waiting = daemons.run(PAUSE, pauses)
    who = f"{kind}: {_daemons(count)}"
    yield Line(table=NOOPS, who=who, run=_told(idle))
    yield Line(table=PAUSES, who=who, run=_told(waiting))


def _told(ran: Ran) -> Run:
    return Run(
        value=ran.jobs / ran.seconds,
        jobs=ran.jobs,
        client_s=ran.client_s,
        broker_s=ran.broker_s,
        resident_mib=ran.highest_mib,
    )


def _daemons(count: int) -> str:
    return "1 daemon" if count == 1 else f"{count} daemons"
