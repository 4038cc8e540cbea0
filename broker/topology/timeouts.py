"""How long RabbitMQ must leave a job with its worker, which follows from its time limit; pure.

RabbitMQ takes back what a consumer holds for longer than its time-out, cancels the consumer and
delivers the message again, uncounted. So a job is ended before: the time-out is longer than the
limit, by what it takes to end it.
https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from broker.topology.model import Topology
from broker.topology.route import Router
from broker.topology.settings import QUORUM
from broker.topology.shares import rounds as rounds_of
from broker.topology.source import DataPath
from broker.units import format_duration

# Between the end of a job and RabbitMQ's time-out: to end its process, and RabbitMQ looks at its
# consumers only now and then.
MARGIN_S = 60.0


def needed_s(limit_s: float, *, rounds: int = 1, longest_s: float = 0.0) -> float:
    """Return the consumer time-out that a time limit asks for, seconds.

    Args:
        limit_s: how long a job may run, seconds.
        rounds: how many jobs run one after the other until the last one held has run.
        longest_s: how long those before it may run, where that is longer, seconds.
    """
    return limit_s + (rounds - 1) * max(limit_s, longest_s) + MARGIN_S


def queues_of_jobs(topology: Topology, router: Router) -> dict[str, tuple[str, ...]]:
    """Return the queues that each job reaches; all, where only RabbitMQ can tell."""
    found = {}
    for name, job in topology.jobs.items():
        routing = router.route(job.exchange, job.routing_key)
        found[name] = tuple(topology.queues) if routing.unknown else routing.queues
    return found


@dataclass(frozen=True, slots=True)
class Need:
    """The time-out that a queue needs, and why.

    Attributes:
        timeout_ms: the least one.
        limit: the time limit that it follows from.
        rounds: how many jobs run one after the other.
        of: whose limit it is, such as ``job 'signal.smooth'``.
        path: where the limit stands in the file.
    """

    timeout_ms: int
    limit: timedelta
    rounds: int
    of: str
    path: DataPath

    def __str__(self) -> str:
        after = "" if self.rounds == 1 else f", {self.rounds} jobs one after the other"
        margin = format_duration(timedelta(seconds=MARGIN_S))
        limit = format_duration(self.limit)
        return f"the time_limit of {limit} of {self.of}{after}, and {margin} to end it"


class Needs:
    """What the time limits of a topology's jobs and workers ask of its queues.

    Args:
        topology: the topology.
        router: of what it compiles to.
    """

    def __init__(self, topology: Topology, router: Router) -> None:
        self._topology = topology
        self._jobs_in: dict[str, list[str]] = {}
        for job, queues in queues_of_jobs(topology, router).items():
            for queue in queues:
                self._jobs_in.setdefault(queue, []).append(job)
        self._workers_of: dict[str, list[str]] = {}
        for name, worker in topology.workers.items():
            for queue in dict.fromkeys(worker.queues):
                self._workers_of.setdefault(queue, []).append(name)

    def most(self, queue: str) -> Need | None:
        """Return the longest time-out that is needed, or None where no limit asks for one."""
        return max(self.of(queue), key=lambda need: need.timeout_ms, default=None)

    def of(self, queue: str) -> list[Need]:
        """Return what each limit asks of a queue; nothing of one that has no time-out."""
        if self._topology.queues[queue].type != QUORUM:
            return []
        found: dict[DataPath, Need] = {}
        for need in self._all(queue):
            known = found.get(need.path)
            if known is None or need.timeout_ms > known.timeout_ms:
                found[need.path] = need
        return list(found.values())

    def _all(self, queue: str) -> Iterator[Need]:
        for job in self._jobs_in.get(queue, ()):
            for worker in self._workers_of.get(queue, ()) or (None,):
                limit, of, path = self._limit(job, worker)
                if limit is None:
                    continue
                rounds, longest_s = 1, 0.0
                if worker is not None and (rounds := self._rounds(worker)) > 1:
                    longest_s = self._longest_s(worker)
                seconds = needed_s(limit.total_seconds(), rounds=rounds, longest_s=longest_s)
                yield Need(round(seconds * 1000), limit, rounds, of, path)

    def _limit(self, job: str, worker: str | None) -> tuple[timedelta | None, str, DataPath]:
        own = self._topology.jobs[job].time_limit
        if own is not None or worker is None:
            return own, f"job {job!r}", ("jobs", job, "time_limit")
        limit = self._topology.workers[worker].time_limit
        return limit, f"worker {worker!r}", ("workers", worker, "time_limit")

    def _rounds(self, worker: str) -> int:
        return rounds_of(self._topology.workers[worker])

    def _longest_s(self, worker: str) -> float:
        limits = [
            self._limit(job, worker)[0]
            for queue in self._topology.workers[worker].queues
            for job in self._jobs_in.get(queue, ())
        ]
        return max((each.total_seconds() for each in limits if each is not None), default=0.0)


def states_limits(topology: Topology) -> bool:
    """Return whether any job or worker of a topology has a time limit."""
    return any(job.time_limit is not None for job in topology.jobs.values()) or any(
        worker.time_limit is not None for worker in topology.workers.values()
    )


def derived(topology: Topology, router: Router, *, default_ms: int) -> Mapping[str, Need]:
    """Return what queues need that state no time-out, where RabbitMQ's own is too short.

    Args:
        topology: the topology.
        router: of what it compiles to without this.
        default_ms: RabbitMQ's own.
    """
    needs = Needs(topology, router)
    found = {}
    for name, queue in topology.queues.items():
        if queue.consumer_timeout is not None or "x-consumer-timeout" in queue.arguments:
            continue
        policy = router.policies.of(name, queue.type).policy
        if policy is not None and not policy.covers:
            # Written by hand: a generated one would take its place, with all that it says.
            continue
        need = needs.most(name)
        if need is not None and need.timeout_ms > default_ms:
            found[name] = need
    return found
