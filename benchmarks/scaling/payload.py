"""Growth with the size of a job's argument: 100 bytes to 8 megabytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from benchmarks.method import Bench, Run
from benchmarks.method.rounds import ROUNDS
from benchmarks.scaling.daemons import QUEUES, Daemons, Kind
from benchmarks.scaling.filling import CELERY, RABBITRY, fill, order
from benchmarks.scaling.place import FEW, NOOP
from benchmarks.scaling.sheets import Line, Sheets
from broker.connection import Address

PUBLISHED, RUN = "scale.payload.published", "scale.payload.run"
SIZES = {"100 B": 100, "10 kB": 10_000, "1 MB": 1_000_000, "8 MB": 8_000_000}
# About a second's work each.
JOBS: Mapping[Kind, Mapping[str, int]] = {
    "rabbitry": {"100 B": 6_000, "10 kB": 3_000, "1 MB": 100, "8 MB": 20},
    "Celery": {"100 B": 1_500, "10 kB": 1_500, "1 MB": 100, "8 MB": 20},
}
PUBLISHERS: Mapping[Kind, str] = {"rabbitry": RABBITRY, "Celery": CELERY}


def measure(bench: Bench, address: Address, folder: Path) -> None:
    """Measure publishing, confirmed, and running, in jobs a second."""
    runners = {
        f"{kind}: {size}": partial(_run, bench, address, folder, kind, size)
        for kind in JOBS
        for size in SIZES
    }
    sheets = Sheets(runners, rounds=ROUNDS)
    for table, title, notes in (
        (PUBLISHED, "published jobs a second, confirmed, by their size", {}),
        (RUN, "no-op jobs a second, two slots, by their size", {"prefetch": FEW}),
    ):
        bench.measure(
            table,
            sheets.of(table),
            title=title,
            unit="jobs/s",
            first=f"rabbitry: {next(iter(SIZES))}",
            notes=notes,
            warm_up=False,
        )


def _run(bench: Bench, address: Address, folder: Path, kind: Kind, size: str) -> Iterator[Line]:
    who, count = f"{kind}: {size}", JOBS[kind][size]
    given = order(
        address,
        NOOP,
        QUEUES[kind],
        count,
        size_bytes=SIZES[size],
        rabbitmq=bench.rabbitmq.pid,
    )
    taken = fill(address, given, publisher=PUBLISHERS[kind])
    prepared = Daemons(bench, address, kind, folder, jobs=count, prefetch=FEW)
    with prepared.running(1) as daemons:
        ran = daemons.run(NOOP, count)
    yield Line(
        table=PUBLISHED,
        who=who,
        run=Run(
            value=count / taken.seconds,
            jobs=count,
            client_s=taken.client_s,
            broker_s=taken.broker_s,
            resident_mib=taken.highest_mib,
        ),
    )
    yield Line(
        table=RUN,
        who=who,
        run=Run(
            value=ran.jobs / ran.seconds,
            jobs=ran.jobs,
            client_s=ran.client_s,
            broker_s=ran.broker_s,
            resident_mib=ran.highest_mib,
        ),
    )
