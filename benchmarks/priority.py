"""How long does a job of high priority wait behind 100,000 low ones in its own queue?

Every slot is busy with low jobs of 50 ms when the high ones come, one after another at uneven
times. What is measured is the time from the call that publishes a high job until it begins.
"""

from __future__ import annotations

import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.method import (
    Bench,
    Ledger,
    Meter,
    Run,
    lacking,
    latencies,
    ready,
    started,
    stop,
    tally,
    until,
)
from benchmarks.method.command import alone
from benchmarks.ranking.contenders import CELERY, DRAMATIQ, Contender, celery, dramatiq, rabbitry
from benchmarks.ranking.jobs import HIGH, LOW, RUN_S, SLOTS, TOLD, TOPOLOGY, told_in, work

ASKS = "How long does a job of high priority wait behind 100,000 low ones?"
MEANING = """\
A job that matters is worth as much as its wait. A queue can put it before all that *waits*; what a
worker has fetched is out of the queue's hands. So its wait is the rest of the low job that ends
first, where a worker holds no more than it runs, and as many low jobs longer as it has fetched
ahead for each slot. With two slots and low jobs of 50 ms the median can be 17 ms at best where the
slots begin at different moments, 25 ms where they begin together, and the longest 50 ms; what is
above that is the way of a message: publish, RabbitMQ, acknowledgement, delivery. The bar is one low
job's run time for the median; the 99th percentile of a run's 30 high jobs is nearly its longest.

All high jobs have priority 9 and all low ones wait in the same queue; quorum queues but where it
says classic. Celery with its defaults fetches four jobs for each slot, acknowledges each when it
begins, and the high one waits behind those that are fetched: on the classic queue with
`x-max-priority` that its documentation describes, and on a quorum queue alike. Told to acknowledge
late and to fetch one for each slot, it does what our worker does without being told. dramatiq by
default fetches two for each thread, and can be told to fetch one. Fetching nothing ahead costs
throughput where jobs are very short; `consume.py` measures that.

Peers publish a high job without confirm, as they do by default; ours is confirmed, and its wait
does not contain the confirm.
"""
TITLE = f"wait of a high-priority job, {SLOTS} slots busy with jobs of {1e3 * RUN_S:.0f} ms"
WAITING = 100_000
WAITING_SMALL = 10_000
# What may be run of them before the last high job comes.
SPARE = 2_500
HIGHS, HIGHS_SMALL = 30, 12
# Uneven, and longer than a high job takes: each meets the slots at another moment.
GAPS_S = (0.04, 0.14)
STILL_S = 0.5
TIMEOUT_S = 60.0
ONE_LOW = "one low job"
OURS = "rabbitry"
OUTSIDE = "left out of the small version"


def ask(bench: Bench) -> None:
    """Measure, in milliseconds."""
    waiting = bench.sized(WAITING, WAITING_SMALL)
    highs = bench.sized(HIGHS, HIGHS_SMALL)
    with ExitStack() as stack:
        quorum = stack.enter_context(bench.virtual_host(TOPOLOGY))
        classic = stack.enter_context(bench.virtual_host(default_queue_type="classic"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        contenders = {OURS: rabbitry(stack, quorum, folder)}
        missing = {}
        if bench.small:
            missing = dict.fromkeys((*CELERY, *DRAMATIQ), OUTSIDE)
        else:
            contenders |= celery(stack, quorum, classic)
            if why := lacking("dramatiq"):
                missing = dict.fromkeys(DRAMATIQ, why)
            else:
                contenders |= dramatiq(stack, quorum, classic)
        for backlog in {id(each.backlog): each.backlog for each in contenders.values()}.values():
            backlog.fill(waiting + SPARE)
        runs: dict[str, Callable[[], Run]] = {
            name: partial(_run, bench, name, each, folder, waiting, highs)
            for name, each in contenders.items()
        }
        bench.measure(
            "priority",
            {**runs, ONE_LOW: _one_low_job},
            title=TITLE,
            unit="ms",
            first=OURS,
            better="less",
            missing=missing,
            notes={"low jobs waiting": waiting, "high jobs": highs, "slots": SLOTS},
            libraries=("dramatiq",),
            # Each run begins with a new worker.
            warm_up=False,
        )


def _one_low_job() -> Run:
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    found = latencies(seconds)
    return Run(value=found[50], latencies_ms=found)


def _run(bench: Bench, name: str, each: Contender, folder: Path, waiting: int, highs: int) -> Run:
    told = folder / uuid.uuid4().hex
    told.mkdir()
    if ready(each.backlog.address, each.backlog.queue) < waiting:
        raise SystemExit(f"{name}: less than {waiting:,} low jobs wait")
    gaps = np.random.default_rng(1).uniform(*GAPS_S, highs)
    environment = {**each.environment, TOLD: str(told)}
    log = told.with_suffix(".log")
    with started(each.command, log=log, environment=environment) as process:
        wait = partial(until, timeout_s=TIMEOUT_S, process=process)
        wait(lambda: len(told_in(told, LOW)) >= 2 * SLOTS, "low jobs to be run")
        # The first one also connects, and does not count.
        each.send(0)
        wait(lambda: told_in(told, HIGH), "the first high job")
        low_before = len(told_in(told, LOW))
        with Meter(bench.rabbitmq.pid, process.pid) as meter:
            for number, gap_s in enumerate(gaps, 1):
                time.sleep(gap_s)
                each.send(number)
            wait(lambda: len(told_in(told, HIGH)) > highs, "all high jobs", pause_s=0.02)
        low = len(told_in(told, LOW)) - low_before
        if each.rest is not None:
            each.rest()
            _wait_still(told)
        stop(process)
    waits = told_in(told, HIGH)
    done, twice = tally(number for number, _ in waits)
    Ledger(published=highs + 1, done=done, twice=twice).check(f"{name}, high jobs")
    each.backlog.check(name, (number for number, _ in told_in(told, LOW)))
    found = latencies([wait_ns / 1e9 for number, wait_ns in waits if number])
    return Run(
        value=found[50],
        jobs=low + highs,
        client_s=meter.client_s,
        broker_s=meter.broker_s,
        latencies_ms=found,
    )


def _wait_still(told: Path) -> None:
    """Wait until a worker that takes no more jobs has run those that it holds."""
    last, since = -1, time.monotonic()

    def still() -> bool:
        nonlocal last, since
        count = len(told_in(told, LOW))
        if count != last:
            last, since = count, time.monotonic()
        return time.monotonic() - since > STILL_S

    until(still, "the jobs that a worker holds", timeout_s=TIMEOUT_S, pause_s=0.05)


if __name__ == "__main__":
    sys.exit(alone(__file__))
