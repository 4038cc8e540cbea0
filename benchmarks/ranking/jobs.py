"""Who is measured in `benchmarks.priority`: low jobs of 50 ms, and high ones that tell their wait.

Each peer twice: as its documentation begins, on the queue that it describes for priorities, and as
its documentation says it for queues in which priorities matter. Nothing is imported but what the
one that is asked for needs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

URL, TOLD = "BENCH_URL", "BENCH_TOLD"
EXCHANGE = "jobs"
SLOTS = 2
RUN_S = 0.05
LOW, HIGH = "ranked.low", "ranked.high"
CELERY_LOW, CELERY_HIGH = "celery.low", "celery.high"
QUEUE, CELERY_QUEUE, DRAMATIQ_QUEUE = "ranked.ours", "ranked.celery", "ranked.dramatiq"
DEAD_QUEUE, DRAMATIQ_DEAD_QUEUE = "dead", f"{DRAMATIQ_QUEUE}.XQ"
LOW_PRIORITY, HIGH_PRIORITY = 0, 9
# Of classic queues, which have no levels unless they are told to: as documentations have it.
MAX_PRIORITY = 10
# What Celery is started as: without a word on priorities, or as they want it.
DEFAULTS, LATE = "defaults", "late"

_LOW = {"exchange": EXCHANGE, "priority": LOW_PRIORITY}

TOPOLOGY: dict[str, Any] = {
    "version": 1,
    "name": "ranked",
    "vhost": {"default_queue_type": "quorum"},
    "exchanges": {EXCHANGE: {"type": "topic"}, "jobs.dead": {"type": "fanout"}},
    "queues": {
        QUEUE: {
            "bindings": [{"exchange": EXCHANGE, "routing_key": "ours.#"}],
            "retry": {"delay": "1s", "max_delay": "1m", "limit": 5},
            "dead_letter": {"exchange": "jobs.dead"},
        },
        DEAD_QUEUE: {"bindings": [{"exchange": "jobs.dead"}]},
        CELERY_QUEUE: {"bindings": [{"exchange": EXCHANGE, "routing_key": "celery.#"}]},
    },
    "jobs": {
        LOW: {**_LOW, "routing_key": "ours.low", "task": "benchmarks.ranking.jobs:low"},
        HIGH: {
            "exchange": EXCHANGE,
            "routing_key": "ours.high",
            "task": "benchmarks.ranking.jobs:high",
            "priority": HIGH_PRIORITY,
        },
        CELERY_LOW: {**_LOW, "routing_key": "celery.low"},
    },
    # As many messages ahead as there are slots: what a worker has where nothing is said.
    "workers": {"ranked": {"queues": [QUEUE], "concurrency": SLOTS}},
}


def work() -> None:
    """Hold a slot for as long as a low job does."""
    time.sleep(RUN_S)


def run_low(number: int) -> None:
    """Work, and tell that it is done."""
    work()
    _tell(f"{LOW} {number}")


def run_high(number: int, published_ns: int) -> None:
    """Tell how long it waited: by the one monotonic clock that all processes of a machine have."""
    _tell(f"{HIGH} {number} {time.monotonic_ns() - published_ns}")


def _tell(line: str) -> None:
    os.write(_file(os.environ[TOLD], os.getpid()), f"{line}\n".encode())


@cache
def _file(folder: str, pid: int) -> int:
    return os.open(Path(folder) / str(pid), os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def told_in(folder: Path, job: str) -> list[tuple[int, int]]:
    """Return what the jobs of a name told: their numbers, and of high ones their waits in ns."""
    found = []
    for each in folder.iterdir():
        for line in each.read_text().splitlines():
            name, number, *wait_ns = line.split()
            if name == job:
                found.append((int(number), int(wait_ns[0]) if wait_ns else 0))
    return found


def _rabbitry(name: str) -> Any:
    from consumers.job import job

    if name == "low":

        @job(LOW)
        def low(number: int) -> None:
            run_low(number)

        return low

    @job(HIGH)
    def high(number: int, published_ns: int) -> None:
        run_high(number, published_ns)

    return high


def celery_app(url: str, *, queue_type: str, style: str) -> Any:
    """Return a Celery application of the two jobs.

    Args:
        url: of RabbitMQ.
        queue_type: ``classic``, with ``x-max-priority``, or ``quorum``.
        style: ``defaults``, or ``late``: acknowledged late, nothing fetched ahead.
    """
    from celery import Celery
    from kombu import Exchange, Queue

    app = Celery("ranked", broker=url, set_as_current=False)
    arguments: dict[str, Any] = {"x-max-priority": MAX_PRIORITY}
    if queue_type == "quorum":
        arguments = {"x-queue-type": "quorum"}
    app.conf.update(
        task_queues=[
            Queue(
                CELERY_QUEUE,
                Exchange(EXCHANGE, type="topic"),
                routing_key="celery.#",
                queue_arguments=arguments,
            )
        ],
        task_routes={
            CELERY_HIGH: {"exchange": EXCHANGE, "routing_key": "celery.high", "queue": CELERY_QUEUE}
        },
        task_ignore_result=True,
        broker_connection_retry_on_startup=True,
    )
    if style == LATE:
        app.conf.update(
            task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1
        )
    app.task(name=CELERY_LOW, shared=False)(run_low)
    app.task(name=CELERY_HIGH, shared=False)(run_high)
    return app


def dramatiq_broker(url: str, *, queue_type: str) -> Any:
    """Return a broker of dramatiq's with its two actors.

    Args:
        url: of RabbitMQ.
        queue_type: ``classic``, with ``max_priority``, or ``quorum``: the virtual host's default.
    """
    import dramatiq
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    broker = RabbitmqBroker(url=url, max_priority=MAX_PRIORITY if queue_type == "classic" else None)
    jobs: dict[str, Callable[..., None]] = {"low": run_low, "high": run_high}
    for name, function in jobs.items():
        dramatiq.actor(actor_name=name, queue_name=DRAMATIQ_QUEUE, broker=broker)(function)
    return broker


def _named(name: str) -> Any:
    if name in ("low", "high"):
        return _rabbitry(name)
    peer, _, rest = name.partition("_")
    queue_type, _, style = rest.partition("_")
    if peer == "dramatiq" and queue_type in ("classic", "quorum"):
        return dramatiq_broker(os.environ[URL], queue_type=queue_type)
    if peer == "celery" and style in (DEFAULTS, LATE):
        return celery_app(os.environ[URL], queue_type=queue_type, style=style)
    raise AttributeError(name)


def __getattr__(name: str) -> Any:
    """Make what a worker asks for, and nothing of the others: ``celery_quorum_late``."""
    made = globals()[name] = _named(name)
    return made
