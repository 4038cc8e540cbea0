"""How long jobs may run: always less than RabbitMQ leaves a message with its consumer.

RabbitMQ takes back what a consumer holds for longer than its time-out, cancels the consumer and
delivers the message again, uncounted: a job that is too slow would run for ever, again and again.
https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from broker.topology import Topology
from broker.topology.route import Router
from broker.topology.timeouts import MARGIN_S, needed_s, queues_of_jobs
from consumers.failure.rules import Rules

# Of one consumer; it holds instead of the queue's.
CONSUMER_TIMEOUT = "x-consumer-timeout"
# Of short time-outs, such as tests have.
_SHARE = 0.2


class Limits:
    """The time limits of a topology's jobs, and the consumer time-outs that follow from them.

    Args:
        topology: the application's.
        rules: of its queues.
        default_s: limit of jobs that state none, seconds, or None.
    """

    def __init__(self, topology: Topology, rules: Rules, *, default_s: float | None = None) -> None:
        self._topology = topology
        self._default_s = default_s
        self._rules = rules

    def stated_s(self, job: str, queues: Iterable[str]) -> float | None:
        """Return the limit that the file states for a job or its worker, seconds, or None.

        Args:
            job: its name.
            queues: of the worker; a job that reaches none of them has no limit here.
        """
        if not set(self.queues_of.get(job, ())).intersection(queues):
            return None
        limit = self._topology.jobs[job].time_limit
        return self._default_s if limit is None else limit.total_seconds()

    def timeout_s(self, queue: str, *, queues: Iterable[str] = (), rounds: int = 1) -> float | None:
        """Return the consumer time-out for a queue, seconds; None where it cannot have one.

        At least what the queue itself says, and more where the limit of a job asks for it.

        Args:
            queue: of the topology.
            queues: all that the worker consumes; their jobs may run before one of this queue.
            rounds: how many jobs may run one after the other until the last one held has run.
        """
        configured_s = self._rules.of(queue).timeout_s
        if configured_s is None:
            return None
        own_s, longest_s = self._longest_s([queue]), self._longest_s([queue, *queues])
        if not own_s:
            return configured_s
        return max(configured_s, needed_s(own_s, rounds=rounds, longest_s=longest_s))

    def limit_s(self, job: str, queues: Iterable[str], *, rounds: int = 1) -> float | None:
        """Return how long a job may run in a worker, seconds; None for as long as it likes.

        A job without a limit in the file has one that ends it before RabbitMQ takes it back.

        Args:
            job: its name.
            queues: of the worker.
            rounds: as above.
        """
        queues = list(queues)
        stated_s = self.stated_s(job, queues)
        if stated_s is not None:
            return stated_s
        timeouts = [self.timeout_s(queue, queues=queues, rounds=rounds) for queue in queues]
        known = [each for each in timeouts if each is not None]
        if not known:
            return None
        shortest_s = min(known)
        return (shortest_s - min(MARGIN_S, shortest_s * _SHARE)) / rounds

    @cached_property
    def queues_of(self) -> dict[str, tuple[str, ...]]:
        """The queues that each job may reach."""
        return queues_of_jobs(self._topology, Router.of(self._topology))

    def _longest_s(self, queues: list[str]) -> float:
        """Return the longest limit that is stated for a job in one of the queues, or 0."""
        stated = [self.stated_s(job, queues) for job in self._topology.jobs]
        return max((each for each in stated if each is not None), default=0.0)
