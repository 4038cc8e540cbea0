"""Libraries of asyncio: aio-pika, and taskiq and FastStream, which publish with it.

Each publish is awaited until RabbitMQ has confirmed it; so many as the order says are awaited
together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from typing import Any
from uuid import uuid4

from benchmarks.loop import run
from benchmarks.method import Meter
from benchmarks.publishers.order import Order

Send = Callable[[str], Awaitable[Any]]


def aio_pika(order: Order) -> Meter:
    """Publish by an exchange of aio-pika, the same body always, under ids of their own."""
    return run(_aio_pika(order))


async def _aio_pika(order: Order) -> Meter:
    import aio_pika

    message = order.message()
    async with await aio_pika.connect(order.url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        exchange = await channel.get_exchange(order.exchange, ensure=False)

        def send(_: str) -> Awaitable[Any]:
            id = str(uuid4())
            one = aio_pika.Message(
                message.body.content,
                headers={**message.headers, "id": id, "root_id": id},
                content_type=message.body.content_type,
                content_encoding=message.body.content_encoding,
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                priority=message.properties["priority"],
                message_id=id,
                correlation_id=id,
                timestamp=message.properties["timestamp"],
            )
            return exchange.publish(one, order.routing_key, mandatory=True)

        return await _timed(order, send)


def taskiq(order: Order) -> Meter:
    """Publish by a task's `kiq`."""
    return run(_taskiq(order))


async def _taskiq(order: Order) -> Meter:
    from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

    broker = AioPikaBroker(
        order.url,
        exchange=Exchange(name=order.exchange, declare=False),
        task_queues=[Queue(name=order.queue, routing_key=order.routing_key, declare=False)],
        # It wants one to exist; nothing here comes to it.
        dead_letter_queue=Queue(name=order.queue, declare=False),
    )

    async def job(value: str) -> None:
        """Is run by a worker."""

    task = broker.register_task(job, task_name=order.job)
    await broker.startup()
    meter = await _timed(order, task.kiq)
    await broker.shutdown()
    return meter


def faststream(order: Order) -> Meter:
    """Publish by a broker's publisher."""
    return run(_faststream(order))


async def _faststream(order: Order) -> Meter:
    from faststream.rabbit import RabbitBroker, RabbitExchange

    async with RabbitBroker(order.url, logger=None) as broker:
        publisher = broker.publisher(
            exchange=RabbitExchange(order.exchange, declare=False),
            routing_key=order.routing_key,
            persist=True,
        )
        await broker.start()
        return await _timed(order, publisher.publish)


async def _timed(order: Order, send: Send) -> Meter:
    await _publish(send, order.arguments(order.warm_up), order.together)
    with Meter(order.rabbitmq) as meter:
        await _publish(send, order.arguments(order.count), order.together)
    return meter


async def _publish(send: Send, arguments: Iterable[str], together: int) -> None:
    left = iter(arguments)
    while batch := list(islice(left, together)):
        await asyncio.gather(*map(send, batch))
