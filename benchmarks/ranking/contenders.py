"""The workers of `benchmarks.priority`, and how the high jobs of each are published."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.method import PYTHON
from benchmarks.ranking.backlog import Backlog
from benchmarks.ranking.jobs import (
    CELERY_HIGH,
    CELERY_QUEUE,
    DEAD_QUEUE,
    DEFAULTS,
    DRAMATIQ_DEAD_QUEUE,
    DRAMATIQ_QUEUE,
    HIGH,
    HIGH_PRIORITY,
    LATE,
    QUEUE,
    SLOTS,
    TOPOLOGY,
    URL,
    celery_app,
    dramatiq_broker,
)
from broker.connection import Address
from broker.topology import Topology
from producers.publisher import Publisher

LOGLEVEL = "WARNING"
# The queue's type, and what is said about how much is fetched ahead.
CELERY = {
    "Celery, classic queue": ("classic", DEFAULTS),
    "Celery": ("quorum", DEFAULTS),
    f"Celery, prefetch {SLOTS}": ("quorum", LATE),
}
DRAMATIQ: dict[str, tuple[str, dict[str, str]]] = {
    "dramatiq, classic queue": ("classic", {}),
    # For each process.
    f"dramatiq, prefetch {SLOTS}": ("quorum", {"dramatiq_queue_prefetch": "1"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A worker and how its high jobs are published.

    Attributes:
        backlog: the queue that it consumes.
        command: that starts it.
        environment: added to its own.
        send: publishes the high job of a number.
        rest: makes it take no further jobs; None where it does so when it is told to end.
    """

    backlog: Backlog
    command: Sequence[str]
    environment: Mapping[str, str]
    send: Callable[[int], Any]
    rest: Callable[[], Any] | None = None


def rabbitry(stack: ExitStack, address: Address, folder: Path) -> Contender:
    """Return ours; what it opens is closed with the stack."""
    topology = folder / "topology.yaml"
    # JSON is YAML.
    topology.write_text(json.dumps(TOPOLOGY))
    publisher = stack.enter_context(Publisher(Topology.model_validate(TOPOLOGY), address.url))
    return Contender(
        backlog=Backlog(address=address, queue=QUEUE, dead=DEAD_QUEUE),
        command=(*PYTHON, "rabbitry", "worker", "run", "ranked", "--loglevel", LOGLEVEL),
        environment={"RABBITRY_TOPOLOGY": str(topology), "RABBITRY_URL": address.url},
        send=lambda number: publisher.publish(HIGH, number, time.monotonic_ns()),
    )


def celery(stack: ExitStack, quorum: Address, classic: Address) -> dict[str, Contender]:
    """Return Celery's, by name.

    Args:
        stack: closes what is opened.
        quorum, classic: virtual hosts of these default queue types.
    """
    backlogs = {
        "quorum": Backlog(address=quorum, queue=CELERY_QUEUE),
        "classic": Backlog(address=classic, queue=CELERY_QUEUE),
    }
    found = {}
    for name, (queue_type, style) in CELERY.items():
        backlog = backlogs[queue_type]
        app = celery_app(backlog.address.url, queue_type=queue_type, style=style)
        stack.callback(app.close)
        if queue_type == "classic":
            _declare(app)
        found[name] = Contender(
            backlog=backlog,
            command=(
                *(*PYTHON, "celery", "-A", f"benchmarks.ranking.jobs:celery_{queue_type}_{style}"),
                *("worker", "-Q", CELERY_QUEUE, "-c", str(SLOTS), "--loglevel", LOGLEVEL),
            ),
            environment={URL: backlog.address.url},
            send=partial(_send_celery, app),
            # Told to end while jobs come in, its pool may wait half a minute for nothing.
            rest=partial(app.control.cancel_consumer, CELERY_QUEUE),
        )
    return found


def _declare(app: Any) -> None:
    with app.connection_for_write() as connection:
        app.amqp.queues[CELERY_QUEUE](connection.default_channel).declare()


def _send_celery(app: Any, number: int) -> None:
    app.send_task(CELERY_HIGH, (number, time.monotonic_ns()), priority=HIGH_PRIORITY)


def dramatiq(stack: ExitStack, quorum: Address, classic: Address) -> dict[str, Contender]:
    """Return dramatiq's, by name; arguments as for `celery`."""
    found = {}
    for name, (queue_type, environment) in DRAMATIQ.items():
        address = classic if queue_type == "classic" else quorum
        broker = dramatiq_broker(address.url, queue_type=queue_type)
        stack.callback(broker.close)
        broker.declare_queue(DRAMATIQ_QUEUE, ensure=True)
        found[name] = Contender(
            backlog=Backlog(address=address, queue=DRAMATIQ_QUEUE, dead=DRAMATIQ_DEAD_QUEUE),
            command=(
                *(*PYTHON, "dramatiq", f"benchmarks.ranking.jobs:dramatiq_{queue_type}"),
                *("--processes", str(SLOTS), "--threads", "1", "--skip-logging"),
            ),
            environment={URL: address.url, **environment},
            send=partial(_send_dramatiq, broker),
        )
    return found


def _send_dramatiq(broker: Any, number: int) -> None:
    broker.get_actor("high").send_with_options(
        args=(number, time.monotonic_ns()), broker_priority=HIGH_PRIORITY
    )
