"""Our own publisher, in its three ways."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchmarks.method import Meter
from benchmarks.publishers.order import Order, timed
from broker.receipt import Routed
from producers.publisher import Publisher

Way = Callable[[Publisher, str, Iterable[str]], None]


def rabbitry_many(order: Order) -> Meter:
    """Publish by `publish_many`."""
    return _timed(order, _many)


def rabbitry_single(order: Order) -> Meter:
    """Publish by `publish`, a job a call, and look at all receipts in the end."""
    return _timed(order, _single)


def rabbitry_waited(order: Order) -> Meter:
    """Publish by `publish`, each job confirmed before the next."""
    return _timed(order, _waited)


def _timed(order: Order, way: Way) -> Meter:
    with Publisher(order.topology(), order.url) as publisher:
        return timed(order, lambda arguments: way(publisher, order.job, arguments))


def _many(publisher: Publisher, job: str, arguments: Iterable[str]) -> None:
    jobs = ((job, (argument,)) for argument in arguments)
    for receipt in publisher.publish_many(jobs):
        if not isinstance(receipt.outcome, Routed):
            raise SystemExit(f"a job was not routed: {receipt.outcome}")


def _single(publisher: Publisher, job: str, arguments: Iterable[str]) -> None:
    for receipt in [publisher.publish(job, argument) for argument in arguments]:
        receipt.wait()


def _waited(publisher: Publisher, job: str, arguments: Iterable[str]) -> None:
    for argument in arguments:
        publisher.publish(job, argument).wait()
