"""Fills the queues."""

from __future__ import annotations

from itertools import islice

from benchmarks.consumers.place import EXCHANGE, routing_key
from benchmarks.method import wait_ready
from benchmarks.publishers import Order, Taken, published
from broker.connection import Address
from producers.publisher import Publisher

# A million of them take a while on a busy machine.
TIMEOUT_S = 60.0
RABBITRY, CELERY = "rabbitry_many", "celery_confirmed"


def order(
    address: Address,
    job: str,
    queue: str,
    count: int,
    *,
    size_bytes: int,
    rabbitmq: int | None = None,
) -> Order:
    """Return the order of so many numbered jobs.

    Args:
        address: of the virtual host.
        job: its name.
        queue: that they shall wait in.
        count: how many.
        size_bytes: of each one's argument.
        rabbitmq: its process id, None where it is not measured or cannot be seen.
    """
    return Order(
        url=address.url,
        job=job,
        queue=queue,
        exchange=EXCHANGE,
        routing_key=routing_key(queue),
        count=count,
        size_bytes=size_bytes,
        numbered=True,
        rabbitmq=rabbitmq,
    )


def fill(address: Address, given: Order, *, publisher: str = RABBITRY) -> Taken:
    """Publish by a process of its own into an empty queue; return what that took."""
    taken = published(publisher, given)
    wait_ready(address, given.queue, given.count, timeout_s=TIMEOUT_S)
    return taken


def publish(given: Order, *, begin: int = 0) -> None:
    """Publish the jobs of an order from a number on, and wait for all confirms."""
    with Publisher(given.topology(), given.url) as publisher:
        jobs = ((given.job, (each,)) for each in islice(given.arguments(given.count), begin, None))
        for receipt in publisher.publish_many(jobs):
            receipt.wait()
