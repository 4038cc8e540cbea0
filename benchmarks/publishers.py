"""The contenders of `benchmarks.publish`, each run as a process of its own.

``python -m benchmarks.publishers NAME COUNT`` publishes so many jobs to the address in
RABBITRY_URL, after a few that do not count, and prints a JSON object: the seconds from the first
publish to the last confirm, the processor's seconds within them, and the process's largest size.
Connecting is not measured.

Each does what its library's documentation advises for many messages, with the settings that it
comes with; all jobs are persistent, mandatory where the library knows that, and carry the same
body and the same headers: Celery's, of its protocol 2.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import islice, repeat
from typing import Any
from uuid import uuid4

from broker.connection import Address, connect
from broker.topology import Topology

JOB, BOUNDED_JOB = "bench.job", "bench.bounded"
EXCHANGE, ROUTING_KEY = "jobs", "normal.bench.job"
QUEUE, BOUNDED_QUEUE = "jobs.normal", "jobs.bounded"
ARGUMENT = "x" * 256
GATHERED = 500
WARM_UP = 500

# What the reference topology has, and a queue that forgets, for more jobs than a disk should hold.
TOPOLOGY = {
    "version": 1,
    "name": "bench",
    "vhost": {"default_queue_type": "quorum"},
    "exchanges": {EXCHANGE: {"type": "topic"}},
    "queues": {
        QUEUE: {
            "type": "quorum",
            "bindings": [{"exchange": EXCHANGE, "routing_key": "normal.#"}],
            "max_length": 1_000_000,
            "overflow": "reject-publish",
        },
        BOUNDED_QUEUE: {
            "type": "quorum",
            "bindings": [{"exchange": EXCHANGE, "routing_key": "bounded.#"}],
            "max_length": 10_000,
            "overflow": "drop-head",
        },
    },
    "jobs": {
        JOB: {"exchange": EXCHANGE, "routing_key": ROUTING_KEY},
        BOUNDED_JOB: {"exchange": EXCHANGE, "routing_key": "bounded.bench.job"},
    },
}


@dataclass(frozen=True, slots=True)
class Taken:
    """What publishing took: seconds of the clock, and of the process on a processor."""

    seconds: float
    cpu_seconds: float


class Watch:
    """Begins when it is made."""

    def __init__(self) -> None:
        self._started, self._cpu_started = time.perf_counter(), time.process_time()

    def stop(self) -> Taken:
        return Taken(time.perf_counter() - self._started, time.process_time() - self._cpu_started)


def topology() -> Topology:
    """Return what the benchmark publishes to."""
    return Topology.model_validate(TOPOLOGY)


def sample(address: Address) -> tuple[bytes, dict[str, Any], dict[str, Any]]:
    """Publish a job and take it again; return its body, headers and other properties."""
    from producers.publisher import Publisher

    with Publisher(topology(), address.url) as publisher:
        publisher.publish(JOB, ARGUMENT).wait()
    connection = connect(address)
    try:
        message = connection.default_channel.basic_get(QUEUE, no_ack=True)
    finally:
        connection.release()
    properties = dict(message.properties)
    body = message.body if isinstance(message.body, bytes) else message.body.encode()
    return body, properties.pop("application_headers"), properties


def rabbitry_many(address: Address, count: int, *, job: str = JOB) -> Taken:
    """Publish by `publish_many`, confirmed."""
    from broker.receipt import Routed
    from producers.publisher import Publisher

    def jobs(count: int) -> Iterable[tuple[Any, ...]]:
        return ((job, (ARGUMENT,)) for _ in range(count))

    with Publisher(topology(), address.url) as publisher:
        for receipt in publisher.publish_many(jobs(WARM_UP)):
            receipt.wait()
        watch = Watch()
        routed = sum(
            isinstance(receipt.outcome, Routed) for receipt in publisher.publish_many(jobs(count))
        )
        taken = watch.stop()
    _check(routed, count)
    return taken


def rabbitry_single(address: Address, count: int) -> Taken:
    """Publish by `publish`, one job a call, and look at all receipts in the end."""
    from producers.publisher import Publisher

    with Publisher(topology(), address.url) as publisher:
        for receipt in [publisher.publish(JOB, ARGUMENT) for _ in range(WARM_UP)]:
            receipt.wait()
        watch = Watch()
        for receipt in [publisher.publish(JOB, ARGUMENT) for _ in range(count)]:
            receipt.wait()
        return watch.stop()


def rabbitry_bounded(address: Address, count: int) -> Taken:
    """Publish by `publish_many` to the queue that forgets: what is measured is memory."""
    return rabbitry_many(address, count, job=BOUNDED_JOB)


def celery_confirmed(address: Address, count: int) -> Taken:
    """Publish by Celery's `apply_async`, with `confirm_publish`."""
    return _celery(address, count, confirm=True)


def celery_unconfirmed(address: Address, count: int) -> Taken:
    """Publish by Celery's `apply_async`, as it comes: what is lost nobody learns."""
    return _celery(address, count, confirm=False)


def _celery(address: Address, count: int, *, confirm: bool) -> Taken:
    from celery import Celery
    from kombu import Exchange

    app = Celery("bench", broker=address.url, set_as_current=False)
    app.conf.broker_transport_options = {"confirm_publish": confirm}
    app.conf.task_ignore_result = True
    exchange = Exchange(EXCHANGE, type="topic", no_declare=True)

    @app.task(name=JOB)
    def job(value: str) -> str:
        return value

    with app.producer_pool.acquire(block=True) as producer:

        def publish(count: int) -> Taken:
            watch = Watch()
            for _ in range(count):
                job.apply_async(
                    (ARGUMENT,), exchange=exchange, routing_key=ROUTING_KEY, producer=producer
                )
            return watch.stop()

        publish(WARM_UP)
        return publish(count)


def aio_pika_gathered(address: Address, count: int) -> Taken:
    """Publish by aio-pika, with its publisher confirms, awaited together."""
    body, headers, properties = sample(address)
    return asyncio.run(_aio_pika(address.url, count, body, headers, properties))


async def _aio_pika(
    url: str, count: int, body: bytes, headers: dict[str, Any], properties: dict[str, Any]
) -> Taken:
    import aio_pika

    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        exchange = await channel.get_exchange(EXCHANGE, ensure=False)

        def message() -> aio_pika.Message:
            id = str(uuid4())
            return aio_pika.Message(
                body,
                headers={**headers, "id": id, "root_id": id},
                content_type=properties["content_type"],
                content_encoding=properties["content_encoding"],
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                priority=properties["priority"],
                message_id=id,
                correlation_id=id,
                timestamp=properties["timestamp"],
            )

        async def publish(count: int) -> Taken:
            watch = Watch()
            left = repeat(None, count)
            while batch := list(islice(left, GATHERED)):
                await asyncio.gather(
                    *(exchange.publish(message(), ROUTING_KEY, mandatory=True) for _ in batch)
                )
            return watch.stop()

        await publish(WARM_UP)
        return await publish(count)


def _check(routed: int, count: int) -> None:
    if routed != count:
        raise SystemExit(f"{count} jobs were published, {routed} were routed")


CONTENDERS: dict[str, Callable[[Address, int], Taken]] = {
    each.__name__: each
    for each in (
        *(rabbitry_many, rabbitry_single, rabbitry_bounded),
        *(celery_confirmed, celery_unconfirmed, aio_pika_gathered),
    )
}


def main() -> None:
    """Run the contender that is named."""
    name, count = sys.argv[1], int(sys.argv[2])
    taken = CONTENDERS[name](Address.parse(os.environ["RABBITRY_URL"]), count)
    size_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({**asdict(taken), "size_mib": round(size_kib / 1024, 1)}))


if __name__ == "__main__":
    main()
