"""Follows the stream of cancellations, in a thread and over a connection of its own.

All that the stream keeps is read, from its first message on: a job may have waited for as long as
that, and its cancellation with it, while this worker was away.
https://www.rabbitmq.com/docs/streams#consuming
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import Any
from uuid import uuid4

from amqp import Message
from amqp.exceptions import AccessRefused, AMQPError, NotFound

from broker.cancellation import read_cancellation
from broker.connection import HEARTBEAT_S, Address, connect
from broker.errors import BrokerUnavailable, InvalidMessage
from broker.topology import Topology
from broker.topology.cancellations import Cancellations, cancellations_of
from broker.wire import patient
from consumers.cancel.jobs import CancelledJobs
from consumers.deliveries import Deliveries

logger = logging.getLogger("rabbitry.cancellations")

# A worker's own message in the stream: what came before it is all that was cancelled until then.
MARK = "rabbitry.mark"
# How many messages RabbitMQ may be ahead; half as many are acknowledged at a time.
PREFETCH = 500
# Between looks whether the thread is to end.
_TURN_S = 1.0
_RETRY_FIRST_S, _RETRY_MOST_S = 0.5, 10.0
# Between looks for a stream that is not there, or may not be read.
_MISSING_S = 30.0


class Reader:
    """Reads cancellations for as long as its process lives.

    Args:
        topology: names the stream.
        address: where RabbitMQ is.
        cancelled: takes what is read.
    """

    def __init__(self, topology: Topology, address: Address, cancelled: CancelledJobs) -> None:
        self._names: Cancellations | None = cancellations_of(topology)
        self._address = address
        self._cancelled = cancelled
        self._up_to_date = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: Any = None
        self._mark = ""
        self._unacked = 0
        self._warned = False

    def start(self) -> None:
        """Begin to read; again it does nothing."""
        if self._thread is None and self._names is not None:
            self._thread = threading.Thread(
                target=self._run, args=(self._names.queue,), name="rabbitry-cancellations"
            )
            self._thread.daemon = True
            self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait until all is read that was there at first; returns whether that is so.

        Where nothing can be read, the wait is over as soon as that is known.

        Args:
            timeout_s: seconds.
        """
        return self._thread is None or self._up_to_date.wait(timeout_s)

    def stop(self) -> None:
        """End the thread; for tests, a worker's ends with its process."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(3 * _TURN_S)

    def _run(self, queue: str) -> None:
        pause_s = _RETRY_FIRST_S
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                self._follow(queue)
            except (NotFound, AccessRefused) as exc:
                self._warn(exc)
                self._stopped.wait(_MISSING_S)
            # Consuming jobs meets the same, and says so.
            except (OSError, AMQPError, BrokerUnavailable) as exc:
                if time.monotonic() - began > _RETRY_MOST_S:
                    pause_s = _RETRY_FIRST_S
                logger.info("cancellations are read again in %g s: %s", pause_s, exc)
                self._stopped.wait(pause_s)
                pause_s = min(2 * pause_s, _RETRY_MOST_S)
            finally:
                self._close()

    def _warn(self, exc: AMQPError) -> None:
        self._up_to_date.set()
        if not self._warned:
            self._warned = True
            logger.warning(
                "cancelled jobs are begun all the same: %s; `rabbitry topology apply` makes the"
                " stream, and gives users with the role worker the right to read it",
                exc.reply_text,
            )

    def _follow(self, queue: str) -> None:
        self._connection = connect(self._address)
        connection = self._connection.connection
        patient(connection.sock, seconds=2 * HEARTBEAT_S)
        Deliveries(connection)
        channel = connection.channel()
        # A stream is consumed with a prefetch, and with acknowledgements that only make room.
        channel.basic_qos(0, PREFETCH, False)
        self._unacked = 0
        channel.basic_consume(
            queue, callback=self._on_message, arguments={"x-stream-offset": "first"}
        )
        self._warned = False
        if not self._up_to_date.is_set():
            self._write_mark(connection, queue)
        tick_at = 0.0
        while not self._stopped.is_set():
            try:
                with suppress(TimeoutError):
                    connection.drain_events(timeout=_TURN_S)
            except AccessRefused as exc:
                if self._up_to_date.is_set():
                    raise
                # Only the mark asks for more than to read.
                logger.info("nobody knows when all cancellations are read: %s", exc.reply_text)
                self._up_to_date.set()
            if time.monotonic() >= tick_at:
                tick_at = time.monotonic() + _TURN_S
                connection.heartbeat_tick()

    def _write_mark(self, connection: Any, queue: str) -> None:
        self._mark = str(uuid4())
        # Another channel: a worker that may not write loses that one only.
        connection.channel().basic_publish(
            Message(self._mark, type=MARK, delivery_mode=2), routing_key=queue
        )

    def _on_message(self, message: Any) -> None:
        if message.properties.get("type") == MARK:
            if message.body == self._mark:
                self._up_to_date.set()
        else:
            try:
                self._cancelled.add(read_cancellation(message.body))
            except InvalidMessage as exc:
                logger.info("a message among the cancellations is none: %s", exc)
        self._unacked += 1
        if self._unacked >= PREFETCH // 2:
            self._unacked = 0
            message.channel.basic_ack(message.delivery_tag, multiple=True)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.collect(socket_timeout=_TURN_S)
