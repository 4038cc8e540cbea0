"""How long jobs may run: always less than RabbitMQ leaves a message with its consumer.

RabbitMQ takes back what a consumer holds for longer than its time-out, cancels the consumer and
delivers the message again, uncounted: a job that is too slow would run for ever, again and again.
https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from broker.delays import Delays
from broker.errors import InvalidDelay
from broker.topology import Topology
from consumers.failure.rules import Rules

# Between the end of a job and RabbitMQ's time-out: to end its process, and RabbitMQ looks at its
# consumers only now and then.
MARGIN_S = 60.0
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
        self._delays = Delays(topology)

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

    def timeout_s(self, queue: str, *, rounds: int = 1) -> float | None:
        """Return the consumer time-out for a queue, seconds; None where it cannot have one.

        At least what the queue itself says, and more where the limit of a job asks for it.

        Args:
            queue: of the topology.
            rounds: how many jobs may run one after the other before the last one held begins.
        """
        configured_s = self._rules.of(queue).timeout_s
        if configured_s is None:
            return None
        stated = [self.stated_s(job, [queue]) for job in self._topology.jobs]
        longest_s = max((each for each in stated if each is not None), default=0.0)
        needed_s = longest_s * rounds + MARGIN_S if longest_s else 0.0
        return max(configured_s, needed_s)

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
        timeouts = [self.timeout_s(queue, rounds=rounds) for queue in queues]
        known = [each for each in timeouts if each is not None]
        if not known:
            return None
        shortest_s = min(known)
        return (shortest_s - min(MARGIN_S, shortest_s * _SHARE)) / rounds

    @cached_property
    def queues_of(self) -> dict[str, tuple[str, ...]]:
        """The queues that each job may reach."""
        found: dict[str, tuple[str, ...]] = {}
        for name, job in self._topology.jobs.items():
            try:
                found[name] = self._delays.queues_of(job.exchange, job.routing_key)
            except InvalidDelay:
                # Only RabbitMQ can tell where it goes: it may be any queue.
                found[name] = tuple(self._topology.queues)
        return found
