"""The low jobs that wait in a queue while `benchmarks.priority` measures the high ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.method import Ledger, ready, tally, wait_ready
from benchmarks.ranking.jobs import (
    CELERY_LOW,
    DRAMATIQ_QUEUE,
    LOW,
    QUEUE,
    TOPOLOGY,
    dramatiq_broker,
)
from broker.body import Body
from broker.connection import Address
from broker.contracts import Job
from broker.message import PERSISTENT, Message
from broker.topology import Topology
from producers.publisher import Publisher


@dataclass(slots=True, kw_only=True)
class Backlog:
    """The low jobs of a queue: how many were published, and which were run.

    Attributes:
        address, queue: where.
        dead: the queue for what fails, None where what fails is gone.
        published: how many.
        run: their numbers, as often as they were.
    """

    address: Address
    queue: str
    dead: str | None = None
    published: int = 0
    run: list[int] = field(default_factory=list)

    def fill(self, count: int) -> None:
        """Publish so many, each as its worker's own client writes them."""
        with Publisher(Topology.model_validate(TOPOLOGY), self.address.url) as publisher:
            if self.queue == DRAMATIQ_QUEUE:
                self._fill_dramatiq(publisher, count)
            else:
                name = LOW if self.queue == QUEUE else CELERY_LOW
                for receipt in publisher.publish_many(Job(name, (each,)) for each in range(count)):
                    receipt.wait()
        wait_ready(self.address, self.queue, count)
        self.published = count

    def _fill_dramatiq(self, publisher: Publisher, count: int) -> None:
        low = dramatiq_broker(self.address.url, queue_type="quorum").get_actor("low")
        for number in range(count):
            message = low.message(number)
            body = Body(message.encode(), "application/octet-stream", "binary")
            publisher.publish_message(
                Message(message.message_id, body, {}, {"delivery_mode": PERSISTENT}),
                exchange="",
                routing_key=DRAMATIQ_QUEUE,
            )

    def check(self, who: str, run: Iterable[int]) -> None:
        """Account for what was run, once the worker is gone: the rest must be back in the queue."""
        self.run += run
        done, twice = tally(self.run)
        wait_ready(self.address, self.queue, self.published - done)
        gone = self.published - ready(self.address, self.queue)
        dead = 0 if self.dead is None else ready(self.address, self.dead)
        Ledger(published=gone, done=done, twice=twice, dead=dead).check(who)
