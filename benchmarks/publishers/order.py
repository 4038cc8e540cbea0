"""What a publisher is to do, and what it took."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

from benchmarks.consumers.account import DIGITS
from benchmarks.method import Meter, highest_mib
from broker.contracts import Job, contract_of
from broker.message import Message, job_message
from broker.topology import Topology

SIZE_BYTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a publisher is to do.

    Attributes:
        url: of RabbitMQ, with the virtual host.
        job: the name of the job.
        queue: that is filled; it exists, but where the library declares its own.
        exchange, routing_key: that lead to it.
        count: how many jobs are measured.
        warm_up: how many come before, unmeasured.
        size_bytes: of a job's one argument, a text.
        numbered: whether each argument begins with the job's number, by which whoever runs it
            can account for it; else all are the same. Raw clients send the same message always.
        together: after how many publishes the confirms are waited for, by those that can choose.
        rabbitmq: the process id of RabbitMQ, None where it cannot be seen.
    """

    url: str
    job: str
    queue: str
    exchange: str
    routing_key: str
    count: int
    warm_up: int = 0
    size_bytes: int = SIZE_BYTES
    numbered: bool = False
    together: int = 500
    rabbitmq: int | None = None

    def arguments(self, count: int) -> Iterator[str]:
        """Yield the argument of each job."""
        rest = "x" * (self.size_bytes - DIGITS)
        if not self.numbered:
            same = "0" * DIGITS + rest
            return (same for _ in range(count))
        return (f"{number:0{DIGITS}d}{rest}" for number in range(count))

    def topology(self) -> Topology:
        """Return what our own publisher has to know."""
        return Topology.model_validate(
            {
                "version": 1,
                "name": "bench",
                "exchanges": {self.exchange: {"type": "topic"}},
                "jobs": {self.job: {"exchange": self.exchange, "routing_key": self.routing_key}},
            }
        )

    def message(self) -> Message:
        """Return a job as Celery's protocol 2 has it, for clients that know no jobs."""
        contract = contract_of(self.topology(), self.job)
        job = Job(self.job, tuple(self.arguments(1)))
        return job_message(contract, job, published_ms=round(time.time() * 1000))

    def document(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What publishing took.

    Attributes:
        seconds: of the clock, from the first publish to the last confirm.
        client_s: of a processor, by the publisher.
        broker_s: of a processor, by RabbitMQ; None where it cannot be seen.
        highest_mib: the most memory that the process had; None where it does not tell.
    """

    seconds: float
    client_s: float
    broker_s: float | None = None
    highest_mib: float | None = None

    @classmethod
    def by(cls, meter: Meter, pid: int) -> Taken:
        """Return what was measured of a process."""
        return cls(
            seconds=meter.seconds,
            client_s=meter.client_s,
            broker_s=meter.broker_s,
            highest_mib=round(highest_mib(pid), 1),
        )


Publish = Callable[[Iterable[str]], None]


def timed(order: Order, publish: Publish) -> Meter:
    """Publish what warms up, then what is measured, by a function that waits for its confirms."""
    publish(order.arguments(order.warm_up))
    with Meter(order.rabbitmq) as meter:
        publish(order.arguments(order.count))
    return meter
