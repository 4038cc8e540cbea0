"""pika's asynchronous connection, as its example of an asynchronous publisher goes.

It publishes on while confirms are under way, as many as our own publisher has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Any

from benchmarks.method import Meter
from benchmarks.publishers.order import Order, timed
from broker.window import WINDOW


def pika_pipelined(order: Order) -> Meter:
    """Publish by pika's channel with callbacks, one message always."""
    publisher = _Publisher(order)
    meter = timed(order, publisher.publish)
    publisher.close()
    return meter


class _Publisher:
    def __init__(self, order: Order) -> None:
        import pika

        message = order.message()
        self._order = order
        self._body = message.body.content
        self._properties = pika.BasicProperties(
            headers=dict(message.headers),
            content_type=message.body.content_type,
            content_encoding=message.body.content_encoding,
            **message.properties,
        )
        self._left: Iterator[str] = iter(())
        self._tag = 0
        # Delivery tags without a confirm, in their order.
        self._open: dict[int, None] = {}
        self._connection: Any = pika.SelectConnection(
            pika.URLParameters(order.url),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._opened),
            on_open_error_callback=self._failed,
            on_close_callback=lambda *_: self._connection.ioloop.stop(),
        )
        self._connection.ioloop.start()

    def publish(self, arguments: Iterable[str]) -> None:
        """Publish as many messages as there are arguments; wait until all are confirmed."""
        self._left = iter(arguments)
        self._connection.ioloop.add_callback_threadsafe(self._go_on)
        self._connection.ioloop.start()

    def close(self) -> None:
        self._connection.close()
        self._connection.ioloop.start()

    def _opened(self, channel: Any) -> None:
        self._channel = channel
        channel.confirm_delivery(self._settled, callback=lambda _: self._connection.ioloop.stop())

    def _failed(self, _connection: Any, error: BaseException) -> None:
        raise SystemExit(f"pika cannot connect: {error}")

    def _go_on(self) -> None:
        while len(self._open) < WINDOW and next(self._left, None) is not None:
            self._tag += 1
            self._open[self._tag] = None
            self._channel.basic_publish(
                self._order.exchange,
                self._order.routing_key,
                self._body,
                self._properties,
                mandatory=True,
            )
        if not self._open:
            self._connection.ioloop.stop()

    def _settled(self, frame: Any) -> None:
        if frame.method.NAME != "Basic.Ack":
            raise SystemExit("RabbitMQ has rejected a message")
        tag = frame.method.delivery_tag
        if frame.method.multiple:
            for each in list(takewhile(lambda each: each <= tag, self._open)):
                del self._open[each]
        else:
            del self._open[tag]
        self._go_on()
