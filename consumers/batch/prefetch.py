"""How many messages a worker holds whose jobs are run in batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery.utils.log import get_logger

from broker.topology.model import WorkerSpec
from broker.topology.shares import slots_of
from consumers.batch.task import BatchTask

logger = get_logger("rabbitry.worker")

# Of AMQP: a number of 16 bits.
MOST_PREFETCH = 65_535


def widened(shares: Mapping[str, int], spec: WorkerSpec, app: Any) -> dict[str, int]:
    """Return how many messages a worker holds of each queue, so that batches can be full.

    Of a queue that a batch job reaches it holds as many as all slots run, and a batch that is
    gathered meanwhile. Where the file states the worker's prefetch, that holds, and the log says
    which batches it keeps small.

    Args:
        shares: by queue, without batches.
        spec: of the worker.
        app: whose tasks are loaded and whose limits are known.
    """
    found = dict(shares)
    for name, task in app.tasks.items():
        if not isinstance(task, BatchTask):
            continue
        for queue in app.limits.queues_of.get(name, ()):
            if queue not in shares:
                continue
            if spec.prefetch is None:
                needed = task.size * (slots_of(spec) + 1)
                found[queue] = min(max(found[queue], needed), MOST_PREFETCH)
            elif shares[queue] < task.size:
                logger.warning(
                    "batches of job %s will not be full: this worker's prefetch for queue %s is"
                    " %d, and a batch has up to %d messages; leave prefetch out, or raise it",
                    *(name, queue, shares[queue], task.size),
                )
    return found


def calls_held(shares: Mapping[str, int], wide: Mapping[str, int], spec: WorkerSpec) -> int:
    """Return how many calls of tasks a worker holds, a batch counted as one.

    Args:
        shares: messages held of each queue, without batches.
        wide: the same, with batches.
        spec: of the worker.
    """
    batches = sum(wide[queue] > shares[queue] for queue in shares) * (slots_of(spec) + 1)
    return sum(shares.values()) + batches
