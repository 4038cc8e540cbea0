"""How many messages a worker holds of each queue: a share of its slots, and none beyond them.

RabbitMQ counts a prefetch for each consumer by itself, and gives to a consumer the one that was
asked for last before it began: https://www.rabbitmq.com/docs/consumer-prefetch. What Celery asks
for later would hold for none that is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import kombu
from amqp import spec
from amqp.exceptions import ConsumerCancelled
from kombu.common import QoS

from broker.errors import WorkerError
from broker.topology import Topology
from broker.topology.shares import shares, shares_of
from consumers.presence import tag_prefix_of

_CANCEL, _NACK = (60, 30), (60, 120)


class ShareConsumer(kombu.Consumer):  # type: ignore[misc]
    """Consumes each queue with a prefetch of its own, again when RabbitMQ ends that.

    Args:
        channel: or a connection, whose channel is taken.
        owner: Celery's consumer that this is of.
        prefetch: by queue, 0 without end; a queue that is added later gets 1.
    """

    def __init__(
        self, channel: Any, *, owner: Any, prefetch: Mapping[str, int], **options: Any
    ) -> None:
        self._owner = owner
        self._prefetch = prefetch
        super().__init__(channel, **options)

    def _basic_consume(self, queue: Any, *args: Any, **options: Any) -> Any:
        if self.consuming_from(queue):
            return super()._basic_consume(queue, *args, **options)
        self.channel.basic_qos(0, self._prefetch.get(queue.name, 1), False)
        tag = super()._basic_consume(queue, *args, **options)
        self.channel.cancel_callbacks[tag] = self._on_cancelled
        return tag

    def _on_cancelled(self, tag: str) -> None:
        """Consume again what RabbitMQ has ended: most likely a job was held for too long.

        On the same channel: with the connection all other jobs of this worker would go back, too,
        and count a failed attempt each.

        Raises:
            ConsumerCancelled: under gevent, whose loop hears of no error that comes of it.
        """
        name = next((name for name, active in self._active_tags.items() if active == tag), None)
        if name is None:
            return
        if not self._owner.hub:
            raise ConsumerCancelled(tag, spec.Basic.Cancel)
        del self._active_tags[name]
        # RabbitMQ 4.3.6 keeps the consumer in its list, and when a job that it took back is
        # acknowledged after all, delivers to it again. py-amqp would reject that, and each time
        # an attempt would count as failed.
        self.channel.callbacks[tag] = self._return
        self.channel.send_method(_CANCEL, "sb", (tag, False))
        self._owner.takeover.tell(self._queues[name], tag)
        self._owner.call_soon(self._resume, name)

    def _return(self, message: Any) -> None:
        """Return what comes to a consumer that has ended, uncounted."""
        self.channel.send_method(_NACK, "Lbb", (message.delivery_tag, False, True))

    def _resume(self, name: str) -> None:
        # Stopped, or connected anew meanwhile.
        if self._owner.task_consumer is not self or not self._active_queue_no_ack:
            return
        # A queue that is gone is a channel error here: the worker connects anew until it is there.
        self._basic_consume(self._queues[name], nowait=False)


def consume(consumer: Any) -> None:
    """Give Celery's consumer what it receives tasks with, on the connection that it has now.

    Args:
        consumer: a `JobConsumer`; it begins to consume when its loop begins.
    """
    consumer.qos_global = False
    consumer.task_consumer = ShareConsumer(
        consumer.connection,
        owner=consumer,
        prefetch=prefetch_of(consumer),
        tag_prefix=tag_prefix_of(consumer.hostname),
        queues=list(consumer.app.amqp.queues.consume_from.values()),
        accept=consumer.app.conf.accept_content,
        on_decode_error=consumer.on_decode_error,
    )
    # Celery raises it for tasks that wait in memory until they are due; here none does.
    consumer.qos = QoS(lambda prefetch_count: None, consumer.initial_prefetch_count)


def prefetch_of(consumer: Any) -> Mapping[str, int]:
    """Return how many messages a consumer of Celery's holds of each of its queues."""
    stated: Mapping[str, int] | None = getattr(consumer.controller, "shares", None)
    if stated is not None:
        return stated
    # `celery worker -Q`: the file's workers say nothing about it.
    queues = list(consumer.app.amqp.queues.consume_from)
    slots = consumer.initial_prefetch_count
    return (
        shares(max(slots, len(queues)), queues, weights={}) if slots else dict.fromkeys(queues, 0)
    )


def shares_for(topology: Topology, name: str) -> dict[str, int]:
    """Return how many messages a worker of the topology holds of each queue.

    Raises:
        WorkerError: it has fewer slots than queues.
    """
    try:
        return shares_of(topology.workers[name])
    except ValueError as exc:
        raise WorkerError(
            f"worker {name!r} consumes more queues than it has slots: {exc}; raise its"
            " concurrency, or run a worker for each queue"
        ) from exc
