"""Ends messages that failed: again after a while, or a dead letter with a case file.

A dead letter is published to the dead-letter exchange, and what is to wait for its next attempt to
the delay ladder where RabbitMQ cannot delay it; either is acknowledged only then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from celery.utils.log import get_logger

from broker.case_file import CaseFile, Reason, without_case
from broker.confirmed import ConfirmedChannel
from broker.connection import Address
from broker.delays import is_of_ladder, without_traces
from broker.errors import InvalidInput
from broker.message import ATTEMPT, ORIGIN, PUBLISHED, Message, attempt_of
from broker.receipt import Receipt, Routed
from broker.topology import Topology
from broker.topology.settings import RETRY_SINCE, known
from consumers.delays import FROM, copy_of, queue_of
from consumers.failure.failure import Failure
from consumers.failure.rules import Rule, Rules

logger = get_logger("rabbitry.dead_letters")

# What could not be published is held for so long before it goes back: it would come again at once.
HOLD_S = 5.0
# All headers share one frame; RabbitMQ closes the connection for a larger one.
_FRAME_BYTES = 100_000
_LEAST_CASE_BYTES = 1024
_CASE_BYTES = 32_768
_NACK = (60, 120)


class Undertaker:
    """Takes the messages that failed.

    Nothing here waits: a message is acknowledged when RabbitMQ has confirmed its dead letter, or
    its copy on the delay ladder, and goes back to its queue where no confirm comes.

    Args:
        topology: says where each queue's dead letters go.
        address: where RabbitMQ is.
    """

    def __init__(self, topology: Topology, address: Address) -> None:
        self.rules = Rules(topology)
        self._queues = topology.queues.keys()
        self._owner = topology.name
        self._requires = topology.broker.requires
        self._address = address
        self._consumer: Any = None
        self._open: set[int] = set()

    @cached_property
    def _channel(self) -> ConfirmedChannel:
        return ConfirmedChannel(self._address, name="rabbitry-dead-letters")

    @property
    def busy(self) -> bool:
        """Whether a message that failed is neither done with nor back in its queue yet."""
        return bool(self._open)

    def serve(self, consumer: Any) -> None:
        """Serve a consumer of Celery's, whose messages these are."""
        self._consumer = consumer

    def rule_of(self, message: Any) -> Rule | None:
        """Return what holds for the queue that a message came from; None where nobody knows."""
        queue = self._queue_of(message)
        return None if queue is None else self.rules.of(queue)

    def has_attempts(self, message: Any) -> bool:
        """Return whether RabbitMQ delivers a message again when it is returned."""
        rule = self.rule_of(message)
        if rule is None or rule.limit is None:
            return True
        return attempt_of(message.headers) <= rule.limit

    def exhausted(self, message: Any) -> Failure | None:
        """Return what is wrong with a message that has no attempt left when it arrives, or None.

        RabbitMQ itself ends what was returned, or lost its consumer, once too often; but what came
        off the delay ladder is new to it, and only the message knows of the attempts before.
        """
        if ATTEMPT not in message.headers:
            return None
        rule, attempt = self.rule_of(message), attempt_of(message.headers)
        if rule is None or rule.limit is None or attempt <= rule.limit + 1:
            return None
        text = f"its consumer was lost, or returned it, in attempt {rule.limit + 1}, its last"
        return Failure(Reason.DELIVERY_LIMIT, "", text)

    def try_again(self, message: Any) -> bool:
        """Have a message that failed come back after its queue's delay, on a RabbitMQ before 4.3.

        That delivers what is rejected again at once. So the message goes to the delay ladder, with
        the number of its next attempt, and is acknowledged when that is confirmed.

        Args:
            message: kombu's; may be given from any thread.

        Returns:
            Whether it is taken care of; else it is to be rejected: RabbitMQ delays it by itself,
            or nobody is to.
        """
        rule, queue = self.rule_of(message), self._queue_of(message)
        if rule is None or rule.waits is None or queue is None:
            return False
        if self._rabbitmq_delays(message) or not is_held(message):
            return False
        wait_ms = rule.waits.wait_ms(attempt_of(message.headers))
        waiting = self._consumer.app.waiting
        self._open.add(id_ := _key(message))
        try:
            receipt = waiting.try_again(message, queue, wait_ms / 1000)
        except InvalidInput as exc:
            self._open.discard(id_)
            logger.error("message %s comes again without a delay: %s", _id_of(message), exc)
            return False
        receipt.add_done_callback(lambda done: self._soon(self._settle_again, done, message))
        return True

    def _rabbitmq_delays(self, message: Any) -> bool:
        """Say whether the RabbitMQ that a message came from delays retries by the file's policy."""
        connection = getattr(message.channel, "connection", None)
        version = (getattr(connection, "server_properties", None) or {}).get("version")
        # A policy for an older RabbitMQ has no such keys.
        return all(
            known(RETRY_SINCE, each)
            for each in (self._requires, version if isinstance(version, str) else None)
        )

    def after(self, replies: Sequence[Receipt], message: Any, then: Callable[[], Any]) -> None:
        """Go on with a message once it is known what became of the replies to it.

        Args:
            replies: how they are sent; one that is dropped has its caller gone, or past its time.
            message: kombu's; the worker does not stop before.
            then: called in the loop.
        """
        if not replies:
            then()
            return
        left = len(replies)
        self._open.add(id_ := _key(message))

        def done() -> None:
            nonlocal left
            left -= 1
            if not left:
                self._open.discard(id_)
                then()

        for receipt in replies:
            receipt.add_done_callback(lambda _: self._soon(done))

    def give_back(self, message: Any) -> None:
        """Return a message to its queue without counting it as a failure."""
        self._soon(_nack, message, self._consumer.connection_errors)

    def bury(self, message: Any, failure: Failure) -> None:
        """Publish a message with its case file to its queue's dead-letter exchange, then ack it.

        From a queue without one it is rejected, as RabbitMQ itself would drop it, and the log has
        the case.

        Args:
            message: kombu's; may be given from any thread.
            failure: the end of it.
        """
        id = _id_of(message)
        if not is_held(message):
            logger.warning(
                "message %s is back in its queue since the connection that it came over was lost,"
                " and is tried again although it failed: %s",
                *(id, failure),
            )
            return
        rule, queue = self.rule_of(message), self._queue_of(message) or ""
        case = self._case(message, failure, queue)
        if rule is None or rule.exchange is None:
            logger.error(
                "message %s of queue %s is over and lost (%s, attempt %d): the queue has no"
                " dead_letter; %s",
                *(id, queue, case.reason, case.attempt, failure),
            )
            self._soon(message.reject_log_error, logger, self._consumer.connection_errors)
            return
        logger.error(
            "message %s of queue %s becomes a dead letter (%s, attempt %d): %s",
            *(id, queue, case.reason, case.attempt, failure),
        )
        key = message.delivery_info["routing_key"] if rule.routing_key is None else rule.routing_key
        self._open.add(id_ := _key(message))
        try:
            letter = _letter(message, case)
            receipt = self._channel.publish(letter, exchange=rule.exchange, routing_key=key)
        except InvalidInput as exc:
            # RabbitMQ has the message as it is, and dead-letters it without a case file.
            self._open.discard(id_)
            logger.error("message %s is dead-lettered without its case file: %s", id, exc)
            self._soon(message.reject_log_error, logger, self._consumer.connection_errors)
            return
        # The confirm comes in another thread; only the consumer's own may use its channel.
        receipt.add_done_callback(lambda done: self._soon(self._settle, done, message, case))

    def _soon(self, call: Any, *args: Any) -> None:
        self._consumer.call_soon(call, *args)

    def _settle(self, receipt: Receipt, message: Any, case: CaseFile) -> None:
        if isinstance(receipt.outcome, Routed):
            self._open.discard(_key(message))
            self._consumer.app.observer.dead_lettered(case.queue, str(case.reason))
            message.ack_log_error(logger, self._consumer.connection_errors)
            return
        logger.error(
            "the dead letter of message %s is not on RabbitMQ; it goes back to its queue in"
            " %g s: %s",
            *(receipt.message_id, HOLD_S, receipt.outcome),
        )
        self._consumer.timer.call_after(HOLD_S, self._return, (message,))

    def _settle_again(self, receipt: Receipt, message: Any) -> None:
        if isinstance(receipt.outcome, Routed):
            self._open.discard(_key(message))
            message.ack_log_error(logger, self._consumer.connection_errors)
            return
        logger.error(
            "message %s cannot wait for its next attempt on the delay ladder; it goes back to its"
            " queue in %g s: %s; `rabbitry topology apply` makes the ladder",
            *(receipt.message_id, HOLD_S, receipt.outcome),
        )
        self._consumer.timer.call_after(HOLD_S, self._reject, (message,))

    def _reject(self, message: Any) -> None:
        self._open.discard(_key(message))
        # It did fail: unlike a nack this counts.
        message.reject_log_error(logger, self._consumer.connection_errors, requeue=True)

    def _return(self, message: Any) -> None:
        self._open.discard(_key(message))
        _nack(message, self._consumer.connection_errors)

    def _queue_of(self, message: Any) -> str | None:
        known = message.headers.get(FROM)
        if isinstance(known, str) and known in self._queues:
            return known
        return queue_of(self._consumer, message.delivery_info.get("consumer_tag"))

    def _case(self, message: Any, failure: Failure, queue: str) -> CaseFile:
        now_ms = round(time.time() * 1000)
        attempt = attempt_of(message.headers)
        published = message.headers.get(PUBLISHED)
        exchange = message.delivery_info.get("exchange")
        key = message.delivery_info.get("routing_key")
        if isinstance(exchange, str) and is_of_ladder(self._owner, exchange):
            exchange = message.headers.get(ORIGIN)
        if not isinstance(exchange, str):
            # From the delay ladder, which lets nothing through twice.
            exchange, key = "", queue
        return CaseFile(
            failure.reason,
            error=failure.error,
            message=failure.message,
            traceback=failure.traceback,
            attempt=attempt,
            # Nobody has written down when an earlier attempt failed; it was published before.
            first_ms=now_ms if attempt == 1 or not isinstance(published, int) else published,
            last_ms=now_ms,
            worker=str(self._consumer.hostname),
            version=_version(),
            exchange=exchange,
            routing_key=key,
            queue=queue,
        )


def last_reason(reason: Reason, limit: int | None) -> Reason:
    """Return the reason of a failure that no attempt follows, of a queue with such a limit."""
    return Reason.LIMIT if reason is Reason.FAILED and limit else reason


def _letter(message: Any, case: CaseFile) -> Message:
    copy = copy_of(message)
    headers = without_case(without_traces(copy.headers))
    room = _FRAME_BYTES - len(repr(headers).encode("utf-8", "replace"))
    headers |= case.headers(most_bytes=min(_CASE_BYTES, max(_LEAST_CASE_BYTES, room)))
    return replace(copy, headers=headers)


def is_held(message: Any) -> bool:
    """Say whether the connection is there that a message came over; without it RabbitMQ has it."""
    connection = getattr(message.channel, "connection", None)
    return connection is not None and bool(connection.connected)


def _nack(message: Any, errors: tuple[type[Exception], ...]) -> None:
    if message.acknowledged:
        return
    try:
        # py-amqp has basic.reject only, which quorum queues count as a failed attempt.
        message.channel.send_method(_NACK, "Lbb", (message.delivery_tag, False, True))
        message._state = "REQUEUED"
    except errors as exc:
        # With its connection the message is back in its queue already.
        logger.warning("message %s could not be returned: %s", _id_of(message), exc)


def _id_of(message: Any) -> str:
    return str(message.properties.get("message_id") or message.headers.get("id") or "without id")


def _key(message: Any) -> int:
    return id(message)


def _version() -> str:
    try:
        return version("rabbitry")
    except PackageNotFoundError:  # pragma: no cover - run from a folder without its metadata
        return ""
