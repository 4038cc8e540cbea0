"""The workers, by name: how each is started, and what it consumes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.consumers.place import (
    CELERY_QUEUE,
    DEAD_QUEUE,
    DRAMATIQ_DEAD_QUEUE,
    DRAMATIQ_QUEUE,
    FASTSTREAM_QUEUE,
    JOB,
    POOLS,
    PREFETCH,
    QUEUE,
    SLOTS,
    TASKIQ_QUEUE,
    TOPOLOGY,
    URL,
    daemon,
)
from benchmarks.method import PYTHON, lacking
from broker.connection import Address

LOGLEVEL = "WARNING"
APPS = "benchmarks.consumers.apps"
BARE = (*PYTHON, "benchmarks.consumers.bare")
# The module without which a worker cannot run, by its name.
MODULES = {
    "dramatiq": "dramatiq",
    "taskiq": "taskiq_aio_pika",
    "FastStream": "faststream",
    "aio-pika": "aio_pika",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker: its command with its environment, and the queue that it consumes.

    Attributes:
        command: that starts it; SIGTERM ends it.
        environment: what it is told beside its own.
        queue: that it consumes.
        dead: where RabbitMQ puts what it rejects.
        publisher: of `benchmarks.publishers`, which writes messages as it reads them.
        job: that it runs.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    queue: str = QUEUE
    dead: str = DEAD_QUEUE
    publisher: str = "rabbitry_many"
    job: str = JOB


def worker(name: str, address: Address, *, prefetch: int, folder: Path) -> Worker:
    """Return a worker of two slots, those of one process (solo) apart.

    Args:
        name: ``rabbitry, POOL``, ``Celery, POOL``, ``dramatiq``, ``taskiq``, ``FastStream``,
            ``kombu``, ``pika`` or ``aio-pika``.
        address: of RabbitMQ.
        prefetch: how many messages all its slots together hold ahead.
        folder: where a file may be written.
    """
    kind, _, pool = name.partition(", ")
    environment = {URL: address.url, PREFETCH: str(prefetch)}
    if kind == "rabbitry":
        return _rabbitry(pool, address, prefetch=prefetch, folder=folder)
    if kind == "Celery":
        slots = POOLS[pool]
        return Worker(
            command=(
                *(*PYTHON, "celery", "-A", f"{APPS}:celery_app", "worker", "-Q", CELERY_QUEUE),
                *("-P", pool, "-c", str(slots), "--loglevel", LOGLEVEL),
            ),
            environment={**environment, PREFETCH: str(prefetch // slots)},
            queue=CELERY_QUEUE,
        )
    if kind == "dramatiq":
        return Worker(
            command=(
                *(*PYTHON, "dramatiq", f"{APPS}:dramatiq_broker", "--skip-logging"),
                *("--processes", str(SLOTS), "--threads", "1"),
            ),
            environment={**environment, "dramatiq_queue_prefetch": str(prefetch // SLOTS)},
            queue=DRAMATIQ_QUEUE,
            dead=DRAMATIQ_DEAD_QUEUE,
            publisher="dramatiq_unconfirmed",
        )
    if kind == "taskiq":
        return Worker(
            command=(
                *(*PYTHON, "taskiq", "worker", f"{APPS}:taskiq_broker"),
                *("--workers", str(SLOTS), "--log-level", LOGLEVEL),
            ),
            environment=environment,
            queue=TASKIQ_QUEUE,
            publisher="taskiq",
        )
    if kind == "FastStream":
        return Worker(
            command=(*BARE, "faststream"),
            environment=environment,
            queue=FASTSTREAM_QUEUE,
            publisher="faststream",
        )
    return Worker(command=(*BARE, kind.replace("-", "_")), environment=environment)


def needs(name: str) -> str | None:
    """Say what a worker lacks here; None where it can run."""
    return lacking(MODULES[name]) if name in MODULES else None


def _rabbitry(pool: str, address: Address, *, prefetch: int, folder: Path) -> Worker:
    topology = folder / "topology.yaml"
    # JSON is YAML.
    topology.write_text(json.dumps(TOPOLOGY))
    run = (*PYTHON, "rabbitry", "worker", "run", daemon(pool, prefetch))
    return Worker(
        command=(*run, "--loglevel", LOGLEVEL),
        environment={
            "RABBITRY_TOPOLOGY": str(topology),
            "RABBITRY_URL": address.url,
            "RABBITRY_MANAGEMENT_URL": address.management_url,
        },
    )
