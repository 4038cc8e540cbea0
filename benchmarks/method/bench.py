"""What a question is given: RabbitMQ, its size, and a place for its results."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from benchmarks.method import broker, machine, results, table
from benchmarks.method.bars import bars_of
from benchmarks.method.results import Record
from benchmarks.method.rounds import ROUNDS, SMALL_ROUNDS, Better, Contender, Run, measure
from broker.connection import Address
from broker.topology import Topology

T = TypeVar("T")
WIDTH = 140


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One run of the benchmarks.

    Attributes:
        rabbitmq: where everybody is measured.
        results: the file that records are appended to.
        small: few rounds of little work, to be done in seconds: for the guard.
        records: what was measured so far.
    """

    rabbitmq: broker.RabbitMQ
    results: Path
    small: bool = False
    records: list[Record] = field(default_factory=list)

    def sized(self, full: T, small: T) -> T:
        """Return one or the other, by the size of this run."""
        return small if self.small else full

    def virtual_host(
        self,
        topology: Topology | Mapping[str, Any] | None = None,
        *,
        default_queue_type: str = "quorum",
    ) -> AbstractContextManager[Address]:
        """Make a virtual host with a topology in force; see `broker.virtual_host`."""
        return broker.virtual_host(self.rabbitmq, topology, default_queue_type=default_queue_type)

    def measure(
        self,
        measurement: str,
        contenders: Mapping[str, Contender],
        *,
        title: str,
        unit: str,
        first: str,
        better: Better = "more",
        each: str = "job",
        missing: Mapping[str, str] | None = None,
        notes: Mapping[str, Any] | None = None,
        libraries: Sequence[str] = (),
        rounds: int | None = None,
        warm_up: bool = True,
    ) -> dict[str, list[Run]]:
        """Run the rounds, print the table with its verdicts, and append the record.

        Args:
            measurement: its name, which begins with that of the question's file: ``publish``,
                ``consume.wide``. The bars of that name belong to it; see `bars.BARS`.
            contenders: by name; each does its work once, checks its ledger, and returns what
                came of it.
            title: what the values are, for a reader.
            unit: of the values.
            first: the contender that the others are set in proportion to.
            better: which of two values.
            each: what the processor's time is given for: a job, a call.
            missing: contenders that could not be measured here, and why.
            notes: what was the same for all and matters: jobs, prefetch, payload.
            libraries: the peers' names, whose versions belong to the record.
            rounds: how many count; by default five, or three where the run is small.
            warm_up: whether a round comes before those.

        Raises:
            ValueError: a bar of this measurement names a contender that is neither measured
                nor said to be missing.
        """
        known = {*contenders, *(missing or {})}
        for bar in bars_of(measurement):
            if unknown := set(bar.contenders) - known:
                raise ValueError(f"{bar.name}: {sorted(unknown)} are not among {sorted(known)}")
        before = machine.load()
        runs = measure(
            contenders,
            rounds=rounds or self.sized(ROUNDS, SMALL_ROUNDS),
            warm_up=warm_up,
        )
        record = Record(
            measurement=measurement,
            title=title,
            unit=unit,
            first=first,
            runs=runs,
            better=better,
            each=each,
            small=self.small,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            missing=dict(missing or {}),
            notes=dict(notes or {}),
            machine=machine.machine(),
            rabbitmq=self.rabbitmq.described,
            versions=machine.versions(libraries),
            load={"before": round(before, 2), "after": round(machine.load(), 2)},
        )
        table.show(record, console())
        self.records.append(record)
        results.append(self.results, record)
        return runs


def console() -> Console:
    """Return one that is wide enough for every column where nothing tells how wide it is."""
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)
