"""Libraries that publish with one call at a time: Celery, dramatiq, kombu, pika."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.method import Meter
from benchmarks.publishers.order import Order, timed


def celery_confirmed(order: Order) -> Meter:
    """Publish by Celery's `apply_async`, with `confirm_publish`."""
    return _celery(order, confirmed=True)


def celery_unconfirmed(order: Order) -> Meter:
    """Publish by Celery's `apply_async`, as it comes: what is lost nobody learns."""
    return _celery(order, confirmed=False)


def _celery(order: Order, *, confirmed: bool) -> Meter:
    from celery import Celery
    from kombu import Exchange

    app = Celery("bench", broker=order.url, set_as_current=False)
    app.conf.broker_transport_options = {"confirm_publish": confirmed}
    app.conf.task_ignore_result = True
    exchange = Exchange(order.exchange, type="topic", no_declare=True)

    @app.task(name=order.job)  # type: ignore[untyped-decorator]
    def job(value: str) -> str:
        return value

    # One for all of them, as its documentation advises for many.
    with app.producer_pool.acquire(block=True) as producer:

        def publish(arguments: Iterable[str]) -> None:
            for argument in arguments:
                job.apply_async(
                    (argument,),
                    exchange=exchange,
                    routing_key=order.routing_key,
                    producer=producer,
                )

        return timed(order, publish)


def dramatiq_confirmed(order: Order) -> Meter:
    """Publish by an actor's `send`, with `confirm_delivery`."""
    return _dramatiq(order, confirmed=True)


def dramatiq_unconfirmed(order: Order) -> Meter:
    """Publish by an actor's `send`, as it comes."""
    return _dramatiq(order, confirmed=False)


def _dramatiq(order: Order, *, confirmed: bool) -> Meter:
    import dramatiq
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    broker = RabbitmqBroker(url=order.url, confirm_delivery=confirmed)

    @dramatiq.actor(broker=broker, queue_name=order.queue, actor_name=order.job)
    def job(value: str) -> None:
        """Is run by a worker."""

    def publish(arguments: Iterable[str]) -> None:
        for argument in arguments:
            job.send(argument)

    meter = timed(order, publish)
    broker.close()
    return meter


def kombu_confirmed(order: Order) -> Meter:
    """Publish by kombu's producer, with `confirm_publish`, one message always."""
    from kombu import Connection

    message = order.message()
    with (
        Connection(order.url, transport_options={"confirm_publish": True}) as connection,
        connection.Producer() as producer,
    ):

        def publish(arguments: Iterable[str]) -> None:
            for _ in arguments:
                producer.publish(
                    message.body.content,
                    exchange=order.exchange,
                    routing_key=order.routing_key,
                    mandatory=True,
                    content_type=message.body.content_type,
                    content_encoding=message.body.content_encoding,
                    headers=dict(message.headers),
                    **message.properties,
                )

        return timed(order, publish)


def pika_confirmed(order: Order) -> Meter:
    """Publish by pika's blocking channel, with `confirm_delivery`, one message always."""
    import pika

    properties = _of_pika(order)
    body = order.message().body.content
    connection = pika.BlockingConnection(pika.URLParameters(order.url))
    channel = connection.channel()
    channel.confirm_delivery()

    def publish(arguments: Iterable[str]) -> None:
        for _ in arguments:
            channel.basic_publish(
                order.exchange, order.routing_key, body, properties, mandatory=True
            )

    meter = timed(order, publish)
    connection.close()
    return meter


def _of_pika(order: Order) -> Any:
    import pika

    message = order.message()
    return pika.BasicProperties(
        headers=dict(message.headers),
        content_type=message.body.content_type,
        content_encoding=message.body.content_encoding,
        **message.properties,
    )
