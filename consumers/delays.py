"""Delays of Celery's: RabbitMQ holds what is not due, never a worker.

A task that is sent with a countdown or an eta, or retried with one, goes to the topology's delay
ladder (`broker.delays`), confirmed. What a plain Celery client sends with an eta arrives at once:
the worker hands it on to the ladder and acknowledges it when RabbitMQ has confirmed it. So does
what failed, where RabbitMQ is too old to delay it itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any

from celery.app.amqp import AMQP
from celery.utils.log import get_logger
from celery.utils.time import maybe_make_aware
from kombu.compression import compress
from kombu.exceptions import EncodeError
from kombu.serialization import dumps

from broker import inherited
from broker.body import Body, encode
from broker.confirmed import PUBLISH_TIMEOUT_S, ConfirmedChannel
from broker.connection import Address
from broker.contracts import DEFAULT_PRIORITY
from broker.delays import Delays, is_of_ladder, was_delayed, without_traces
from broker.errors import InvalidDelay, InvalidInput, InvalidMessage
from broker.message import (
    ATTEMPT,
    COMPRESSION,
    DEADLINE,
    ORIGIN,
    PERSISTENT,
    Message,
    attempt_of,
)
from broker.receipt import Receipt, Routed
from broker.topology import Topology
from broker.topology.ladder import retry_ladder

logger = get_logger(__name__)

# A message from the ladder has waited by RabbitMQ's clock. Where the sender's clock is ahead of
# the worker's by no more than this it is due, whatever its eta says.
CLOCK_SKEW_S = 1.0
# Set on what a worker receives, and never sent: the queue that it came from, which a retry of it
# goes back to.
FROM = "rabbitry-from"
_PROPERTIES = (
    *("priority", "correlation_id", "reply_to", "message_id", "timestamp"),
    *("type", "user_id", "app_id"),
)


class Waiting:
    """Publishes to a topology's delay ladder.

    Args:
        topology: the application's.
        address: where RabbitMQ is.
    """

    def __init__(self, topology: Topology, address: Address) -> None:
        self.delays = Delays(topology)
        self._retries = retry_ladder(topology)
        self._owner = topology.name
        self._address = address
        self._warned = False

    @cached_property
    def _channel(self) -> ConfirmedChannel:
        return ConfirmedChannel(self._address, name="rabbitry-delays")

    # -- of tasks that this application sends ---------------------------------------------

    def send(
        self,
        message: Message,
        *,
        wait_s: float,
        exchange: str,
        routing_key: str,
        queue: str | None = None,
        timeout_s: float = PUBLISH_TIMEOUT_S,
    ) -> None:
        """Publish what is to wait, and wait until RabbitMQ has it.

        Args:
            message: as it would go to the exchange.
            wait_s: seconds until it is due.
            exchange, routing_key: where it is to go then.
            queue: the one queue instead.
            timeout_s: seconds until the outcome must be known.

        Raises:
            InvalidDelay: the topology has no delays, none so long, or no queue takes it.
            Unroutable, Rejected, OutcomeUnknown: how the publish ended.
        """
        ladder = self.delays.ladder
        queues = (queue,) if queue else self.delays.queues_of(exchange, routing_key)
        if not queues:
            raise InvalidDelay(
                f"message {message.id} would reach no queue when it is due: exchange"
                f" {exchange!r}, routing key {routing_key!r};"
                " `rabbitry topology route` shows the bindings"
            )
        delayed, entry = ladder.delayed(message, wait_s=wait_s, queues=queues)
        self._channel.publish(
            delayed, exchange=entry, routing_key=routing_key, timeout_s=timeout_s
        ).wait()

    # -- of messages that a worker receives -----------------------------------------------

    def take(self, message: Any, consumer: Any) -> bool:
        """Hand a message that is not due on to the ladder; returns whether it was.

        Nothing here waits: the message is acknowledged when RabbitMQ's confirm comes, and returned
        to its queue where none does.

        Args:
            message: kombu's.
            consumer: Celery's, whose connection the message came over.
        """
        queue = queue_of(consumer, message.delivery_info.get("consumer_tag"))
        if queue is None or not isinstance(message.headers, dict):
            return False
        if message.headers.get("eta") is None:
            message.headers[FROM] = queue
            return False
        due_s = due_of(message.headers, consumer.app.timezone)
        wait_s = 0.0 if due_s is None else due_s - time.time()
        if wait_s <= (CLOCK_SKEW_S if was_delayed(message.headers) else 0):
            if wait_s > 0:
                # Celery would keep it until the last of the skew is over.
                message.headers["eta"] = None
            message.headers[FROM] = queue
            return False
        try:
            receipt = self._hand_on(message, queue, wait_s)
        except InvalidDelay as exc:
            if not self._warned:
                self._warned = True
                logger.warning("a task with an eta waits in this worker's memory: %s", exc)
            return False
        except InvalidInput as exc:
            logger.error("a task with an eta cannot be handed on: %s", exc)
            message.reject_log_error(logger, consumer.connection_errors)
            return True
        # The confirm comes in another thread; only the consumer's own may use its channel.
        receipt.add_done_callback(
            lambda done: consumer.call_soon(_settle, done, message, consumer.connection_errors)
        )
        return True

    def _hand_on(self, message: Any, queue: str, wait_s: float) -> Receipt:
        delayed, entry = self.delays.ladder.delayed(
            copy_of(message),
            wait_s=wait_s,
            # Where it came from, and not where its exchange leads: other queues have their own.
            queues=(queue,),
            # One that is to wait longer comes back, and goes round again.
            cut=True,
        )
        logger.info("task %s is not due for %.1f s: RabbitMQ holds it", delayed.id, wait_s)
        return self._channel.publish(
            delayed, exchange=entry, routing_key=message.delivery_info["routing_key"]
        )

    def try_again(self, message: Any, queue: str, wait_s: float) -> Receipt:
        """Publish what failed, to come back to its queue for its next attempt.

        Args:
            message: kombu's.
            queue: that it came from.
            wait_s: seconds until the next attempt, rounded up to whole ones.

        Raises:
            InvalidInput: it cannot be published so.
        """
        if self._retries is None:
            raise InvalidDelay(f"queue {queue!r} has no delay between attempts")
        delayed, entry = self._retries.delayed(
            copy_of(message), wait_s=wait_s, queues=(queue,), cut=True
        )
        origin = message.delivery_info["exchange"]
        if self.comes_from_ladder(origin):
            # It has been through here, or was delayed by who published it.
            origin = message.headers.get(ORIGIN)
        headers = {**delayed.headers, ATTEMPT: attempt_of(message.headers) + 1}
        if isinstance(origin, str):
            headers[ORIGIN] = origin
        return self._channel.publish(
            replace(delayed, headers=headers),
            exchange=entry,
            routing_key=message.delivery_info["routing_key"],
        )

    def comes_from_ladder(self, exchange: str) -> bool:
        """Return whether a message from an exchange has been on the ladder."""
        return is_of_ladder(self._owner, exchange)


class WaitingAMQP(AMQP):  # type: ignore[misc]
    """Celery's sender of tasks; what is not due goes to the ladder of `app.waiting`."""

    def _create_task_sender(self) -> Any:
        send = super()._create_task_sender()
        app = self.app

        def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
            return send(_Producer(producer, app), name, message, **options)

        return send_task_message


class _Producer:
    """kombu's producer, but for messages that are not due."""

    def __init__(self, producer: Any, app: Any) -> None:
        self._producer = producer
        self._app = app

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def publish(self, body: Any, **options: Any) -> Any:
        # A task that is sent again brings the headers of its last delivery.
        headers = options["headers"] = without_traces(options.get("headers") or {})
        due_s = due_of(headers, self._app.timezone)
        wait_s = 0.0 if due_s is None else due_s - time.time()
        queue = headers.pop(FROM, None)
        if wait_s <= 0:
            inherit_deadline(headers)
        waiting = self._app.waiting
        exchange = options.get("exchange") or ""
        exchange = str(getattr(exchange, "name", exchange))
        if wait_s <= 0:
            if queue and waiting.comes_from_ladder(exchange):
                # A retry at once, of what had waited: it goes the way that it came.
                options |= {"exchange": "", "routing_key": queue}
            encoded = _encoded(body, options.pop("serializer", None))
            options |= {
                "content_type": encoded.content_type,
                "content_encoding": encoded.content_encoding,
            }
            return self._producer.publish(encoded.content, **options)
        encoded = _encoded(body, options.get("serializer"))
        if compression := options.get("compression"):
            content, headers["compression"] = compress(encoded.content, compression)
            encoded = replace(encoded, content=content)
        waiting.send(
            message_of(encoded, headers, options),
            wait_s=wait_s,
            exchange=exchange,
            routing_key=options.get("routing_key") or "",
            queue=queue,
            timeout_s=options.get("timeout") or PUBLISH_TIMEOUT_S,
        )
        return None


def _encoded(body: Any, serializer: str | None) -> Body:
    """Encode a task's arguments; arrays in them as such, as in a chain."""
    if serializer is None or serializer in ("json", "msgpack"):
        try:
            return encode(body, serializer="msgpack" if serializer == "msgpack" else "json")
        except InvalidMessage as exc:
            raise EncodeError(str(exc)) from exc
    content_type, content_encoding, content = dumps(body, serializer)
    return Body(raw(content, content_encoding), content_type, content_encoding)


def inherit_deadline(headers: dict[str, Any]) -> None:
    """Give a task that is sent within a job no later a deadline than the job has.

    Args:
        headers: of its message.
    """
    running = inherited.parent()
    if running is None or running.deadline_s is None:
        return
    theirs_ms, own_ms = round(running.deadline_s * 1000), headers.get(DEADLINE)
    if not isinstance(own_ms, int) or own_ms > theirs_ms:
        headers[DEADLINE] = theirs_ms


def due_of(headers: Mapping[str, Any] | None, timezone: Any) -> float | None:
    """Return when a task's headers say that it is due, seconds since 1970-01-01 UTC, or None.

    Args:
        headers: of its message.
        timezone: of times without one.
    """
    eta = (headers or {}).get("eta")
    if not isinstance(eta, str):
        return None
    try:
        return float(maybe_make_aware(datetime.fromisoformat(eta), timezone).timestamp())
    except (ValueError, OverflowError):
        return None  # Celery has its own words for it


def message_of(body: Body, headers: Mapping[str, Any], properties: Mapping[str, Any]) -> Message:
    """Return a task's message with those properties that travel, persistent."""
    id = str(properties.get("message_id") or headers.get("id") or "")
    kept = {k: v for k in _PROPERTIES if (v := properties.get(k)) is not None}
    kept = {"priority": DEFAULT_PRIORITY, **kept, "message_id": id, "delivery_mode": PERSISTENT}
    return Message(id, body, headers, kept)


def copy_of(message: Any) -> Message:
    """Return a message of kombu's as it came, without what is the worker's own.

    Its body is decompressed where kombu could do so.
    """
    own = (FROM,) if message.errors else (FROM, COMPRESSION)
    headers = {name: value for name, value in message.headers.items() if name not in own}
    content = raw(message.body, message.content_encoding)
    body = Body(content, message.content_type, message.content_encoding)
    return message_of(body, headers, message.properties)


def raw(content: Any, encoding: str | None) -> bytes:
    """Return content as it was or is to be on the wire; py-amqp hands over text as such."""
    return content.encode(encoding or "utf-8") if isinstance(content, str) else bytes(content)


def queue_of(consumer: Any, consumer_tag: str | None) -> str | None:
    """Return the queue that a delivery came from, or None where nobody knows."""
    for queue, tag in consumer.task_consumer._active_tags.items():
        if tag == consumer_tag:
            return str(queue)
    return None


def _settle(receipt: Receipt, message: Any, errors: tuple[type[Exception], ...]) -> None:
    if isinstance(receipt.outcome, Routed):
        message.ack_log_error(logger, errors)
        return
    logger.warning(
        "task %s is not due and RabbitMQ does not hold it; it goes back to its queue: %s",
        receipt.message_id,
        receipt.outcome,
    )
    message.reject_log_error(logger, errors, requeue=True)
