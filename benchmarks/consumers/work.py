"""Fills a queue, lets a worker empty it, and reads the ledger."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from benchmarks.consumers.accounts import Accounts
from benchmarks.consumers.place import EXCHANGE, routing_key
from benchmarks.consumers.workers import Worker
from benchmarks.method import Bench, Ledger, Meter, Run, ready, started, stop, until, wait_ready
from benchmarks.publishers import SIZE_BYTES, Order, own, published
from broker.connection import Address

WARM_UP_SHARE = 0.1
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a worker is given.

    Attributes:
        jobs: how many.
        size_bytes: of each job's argument.
    """

    jobs: int
    size_bytes: int = SIZE_BYTES


def fill(address: Address, worker: Worker, load: Load) -> None:
    """Publish the jobs, numbered, in the worker's own format, and wait until they are there."""
    order = Order(
        url=address.url,
        job=worker.job,
        queue=worker.queue,
        exchange=EXCHANGE,
        routing_key=routing_key(worker.queue),
        count=load.jobs,
        size_bytes=load.size_bytes,
        numbered=True,
    )
    if worker.publisher == "rabbitry_many":
        own.rabbitry_many(order)
    else:
        published(worker.publisher, order)
    wait_ready(address, worker.queue, load.jobs)


def work(
    who: str, bench: Bench, address: Address, worker: Worker, load: Load, *, folder: Path
) -> Run:
    """Let a worker run so many jobs that wait for it; return how many it ran a second.

    What is measured begins when a tenth of them is done.

    Args:
        who: the worker's name, for the ledger.
        bench: of this run.
        address: of the virtual host.
        worker: what is started.
        load: what it is given.
        folder: where its log and its account may be.

    Raises:
        SystemExit: a job was lost, is left, is dead or was run twice.
    """
    fill(address, worker, load)
    name = uuid.uuid4().hex
    accounts = Accounts(folder / name, load.jobs)
    environment = {**worker.environment, **accounts.environment}
    warm_up = round(load.jobs * WARM_UP_SHARE)
    log = folder / f"{name}.log"
    with started(worker.command, log=log, environment=environment) as process:
        meter = Meter(bench.rabbitmq.pid, process.pid)
        until(
            lambda: accounts.seen() >= warm_up,
            "the first jobs",
            timeout_s=TIMEOUT_S,
            process=process,
        )
        meter.start()
        first = accounts.seen()
        until(
            lambda: accounts.seen() >= load.jobs,
            "the last job",
            timeout_s=TIMEOUT_S,
            process=process,
        )
        meter.stop()
        stop(process)
    done, twice = accounts.done_and_twice()
    Ledger(
        published=load.jobs,
        done=done,
        # What it still held is ready again now that it has ended.
        waiting=ready(address, worker.queue),
        dead=ready(address, worker.dead),
        twice=twice,
    ).check(who)
    jobs = load.jobs - first
    return Run(
        value=jobs / meter.seconds,
        jobs=jobs,
        client_s=meter.client_s,
        broker_s=meter.broker_s,
        resident_mib=meter.resident_mib,
    )
