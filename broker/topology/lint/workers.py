"""Rules about workers: that what they consume exists, and what has jobs is consumed."""

from __future__ import annotations

from collections.abc import Iterator

from broker.errors import did_you_mean
from broker.topology.lint.finding import Finding, finding
from broker.topology.lint.view import View
from broker.topology.model import Topology


def check_values(topology: Topology) -> Iterator[Finding]:
    """Yield queues that workers name and the file does not have."""
    for name, worker in topology.workers.items():
        for index, queue in enumerate(worker.queues):
            here = ("workers", name, "queues", index)
            if queue not in topology.queues:
                text = f"no queue is named {queue!r}{did_you_mean(queue, topology.queues)}"
                yield finding(here, "unknown-queue", text)
            elif queue in worker.queues[:index]:
                yield finding(here, "repeated", "this queue stands here twice")


def check(view: View) -> Iterator[Finding]:
    """Yield queues that jobs reach and no worker of the file consumes."""
    for queue, jobs in view.jobs_in.items():
        with_task = [job for job in jobs if view.topology.jobs[job].task is not None]
        if with_task and queue not in view.workers_of:
            text = f"job {with_task[0]!r} waits here, and no worker of the file consumes it"
            yield finding(("queues", queue), "not-consumed", text, at_key=True)
