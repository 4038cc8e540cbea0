"""Rules about workers: that what they consume exists and is shared out, that jobs are consumed."""

from __future__ import annotations

from collections.abc import Iterator

from broker.errors import did_you_mean
from broker.host_port import parse_host_port
from broker.topology.lint.finding import Finding, finding
from broker.topology.lint.view import View
from broker.topology.model import Topology, WorkerSpec
from broker.topology.settings import QUORUM
from broker.topology.shares import held, slots_of
from broker.topology.source import DataPath

# What RabbitMQ counts a message without priority as.
NO_PRIORITY = 4


def check_values(topology: Topology) -> Iterator[Finding]:
    """Yield queues that workers name and do not have, and slots that do not suffice."""
    for name, worker in topology.workers.items():
        path: DataPath = ("workers", name)
        for index, queue in enumerate(worker.queues):
            here = (*path, "queues", index)
            if queue not in topology.queues:
                text = f"no queue is named {queue!r}{did_you_mean(queue, topology.queues)}"
                yield finding(here, "unknown-queue", text)
            elif queue in worker.queues[:index]:
                yield finding(here, "repeated", "this queue stands here twice")
        yield from _shares(worker, path)
    yield from _health(topology)


def _health(topology: Topology) -> Iterator[Finding]:
    """Yield workers that are to listen where another one does."""
    taken: dict[str, str] = {}
    for name, worker in topology.workers.items():
        # Port 0 stands for any that is free.
        if worker.health is None or parse_host_port(worker.health)[1] == 0:
            continue
        other = taken.setdefault(worker.health, name)
        if other != name:
            text = f"worker {other!r} listens at {worker.health} already"
            yield finding(("workers", name, "health"), "health-taken", text)


def _shares(worker: WorkerSpec, path: DataPath) -> Iterator[Finding]:
    queues = set(worker.queues)
    for queue in worker.weights:
        if queue not in queues:
            text = f"the worker does not consume {queue!r}{did_you_mean(queue, worker.queues)}"
            yield finding((*path, "weights", queue), "worker-weights", text, at_key=True)
    if held(worker) < len(queues):
        key = "concurrency" if worker.prefetch is None else "prefetch"
        solo = worker.pool == "solo" and worker.prefetch is None
        why = "the pool solo runs one job at a time; " if solo else f"raise {key}, or "
        yield finding(
            (*path, key if key in worker.model_fields_set else "queues"),
            "worker-slots",
            f"{held(worker)} slots cannot be divided among {len(queues)} queues: {why}"
            "run a worker for each queue",
            at_key=True,
        )
    if worker.starvation is not None and len(queues) == 1:
        text = "with one queue there is no lower band to keep slots for; take it away"
        yield finding((*path, "starvation"), "worker-starvation", text, at_key=True)


def check(view: View) -> Iterator[Finding]:
    """Yield queues that no worker consumes, and workers that hold or run jobs for too long."""
    for queue, jobs in view.jobs_in.items():
        with_task = [job for job in jobs if view.topology.jobs[job].task is not None]
        if with_task and queue not in view.workers_of:
            text = f"job {with_task[0]!r} waits here, and no worker of the file consumes it"
            yield finding(("queues", queue), "not-consumed", text, at_key=True)
    for name, worker in view.topology.workers.items():
        if worker.time_limit is not None and worker.pool != "prefork":
            text = f"the pool {worker.pool} cannot end a job that runs too long; prefork can"
            yield finding(("workers", name, "time_limit"), "time-limit-pool", text, at_key=True)
        more = held(worker) - slots_of(worker)
        if more > 0:
            yield finding(
                ("workers", name, "prefetch"),
                "prefetch-priority",
                f"it holds {held(worker)} jobs and runs {slots_of(worker)}, which is quicker for"
                f" short ones: {_behind(view, worker)} behind up to {more} that are already held,"
                " and whoever is killed with them counts a failed attempt of each; leave prefetch"
                " out where that matters",
                at_key=True,
            )


def _behind(view: View, worker: WorkerSpec) -> str:
    """Return who waits: a job of the file, where the worker's queues rank jobs by priority."""
    for queue in worker.queues:
        ranks = priorities(view, queue)
        if len(set(ranks.values())) > 1:
            return f"{max(ranks, key=ranks.__getitem__)!r} of queue {queue!r} waits"
    return "a job of higher priority waits"


def priorities(view: View, queue: str) -> dict[str, int]:
    """Return the priorities of the jobs in a quorum queue as RabbitMQ ranks them; none elsewhere.

    Args:
        view: of the topology.
        queue: its name.
    """
    if view.topology.queues[queue].type != QUORUM:
        return {}
    specs = {job: view.topology.jobs[job].priority for job in view.jobs_in.get(queue, ())}
    return {job: NO_PRIORITY if it is None else it for job, it in specs.items()}
