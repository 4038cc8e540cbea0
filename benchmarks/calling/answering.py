"""Starts who answers in `benchmarks.call` and `benchmarks.arrays`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.calling.echoes import (
    CELERY_QUEUES,
    PICKLE,
    PICKLE_QUEUE,
    QUEUES,
    SLOTS,
    TOPOLOGY,
    URL,
    WIDE,
    slots,
)
from benchmarks.method import PYTHON, Bench, Ledger, Meter, ready, started, wait_consumed
from broker.connection import Address

LOGLEVEL = "WARNING"


@contextmanager
def answering(
    address: Address, queues: Sequence[str], folder: Path
) -> Iterator[dict[str, tuple[int, ...]]]:
    """Start a worker for each queue and wait until all consume; yield their ids, by queue.

    Args:
        address: of the virtual host.
        queues: of requests.
        folder: for a topology file and logs.
    """
    topology = folder / "topology.yaml"
    # JSON is YAML.
    topology.write_text(json.dumps(TOPOLOGY))
    environment = {
        "RABBITRY_TOPOLOGY": str(topology),
        "RABBITRY_URL": address.url,
        URL: address.url,
        # Without it Celery does not take pickle where the benchmark is run as root.
        "C_FORCE_ROOT": "true",
    }
    pids: dict[str, tuple[int, ...]] = {}
    with ExitStack() as stack:
        for queue in queues:
            for number, command in enumerate(_commands(queue)):
                log = folder / f"{queue}.{number}.log"
                process = stack.enter_context(started(command, log=log, environment=environment))
                pids[queue] = (*pids.get(queue, ()), process.pid)
        for queue, them in pids.items():
            wait_consumed(address, queue, count=len(them))
        yield pids


def metered(
    bench: Bench,
    address: Address,
    who: str,
    *,
    queue: str,
    pids: Sequence[int],
    count: int,
    work: Callable[[], int],
    again: Callable[[], int],
) -> Meter:
    """Do one run, measure the processor's time of both ends, and read the ledger.

    Args:
        bench: gives RabbitMQ.
        address: of the virtual host.
        who: the contender.
        queue: of its requests.
        pids: of those who answer.
        count: how many calls there are.
        work: makes them; returns how many replies were right.
        again: how many replies came to no call, since its caller began.
    """
    before = again()
    with Meter(bench.rabbitmq.pid, *pids, alone=(os.getpid(),)) as meter:
        right = work()
    Ledger(
        published=count, done=right, waiting=ready(address, queue), twice=again() - before
    ).check(who)
    return meter


def _commands(queue: str) -> list[tuple[str, ...]]:
    """Return what to start for a queue: together they have the slots, and fetch as much ahead."""
    for pool, ours in QUEUES.items():
        if queue == ours:
            return [(*PYTHON, "rabbitry", "worker", "run", pool, "--loglevel", LOGLEVEL)]
        if queue == CELERY_QUEUES[pool]:
            return [_celery(queue, pool, "json")]
    if queue == PICKLE_QUEUE:
        return [_celery(queue, "prefork", PICKLE)]
    return [(*PYTHON, "benchmarks.calling.echoes", queue)] * SLOTS


def _celery(queue: str, pool: str, serializer: str) -> tuple[str, ...]:
    count = slots(pool)
    return (
        *(*PYTHON, "celery", "-A", f"benchmarks.calling.echoes:celery_{serializer}", "worker"),
        *("-Q", queue, "-P", pool, "-c", str(count), "-n", f"{serializer}.{pool}@%h"),
        *("--prefetch-multiplier", str(WIDE // count), "--loglevel", LOGLEVEL),
    )
