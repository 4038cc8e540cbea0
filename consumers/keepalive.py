"""Heartbeats while a worker's loop runs a job itself (pool solo), and writes none meanwhile.

RabbitMQ takes a connection for lost that is silent for two heartbeats; the job that runs would be
delivered again, and run again, as often as it takes longer than that.
https://www.rabbitmq.com/docs/heartbeats
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger("rabbitry.worker")

# Type 8 on channel 0, empty.
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_SHARE = 4


class Keepalive:
    """Writes heartbeats to a connection while the thread that owns it is busy.

    Args:
        heartbeat_s: after two of which RabbitMQ takes the connection for lost.
    """

    def __init__(self, *, heartbeat_s: float) -> None:
        self._interval_s = heartbeat_s / _SHARE
        self._connection: Any = None
        # Held for a write: the owner goes on only when the frame is out.
        self._writing = threading.Lock()
        threading.Thread(target=self._run, name="rabbitry-keepalive", daemon=True).start()

    @contextmanager
    def busy(self, connection: Any) -> Iterator[None]:
        """Keep a connection of py-amqp's alive; its owner leaves it alone meanwhile.

        Args:
            connection: or None, where there is none.
        """
        for channel in tuple(getattr(connection, "channels", None) or {}):
            # What is settled must not wait for a job that takes long.
            flush = getattr(connection.channels.get(channel), "flush", None)
            if flush is not None:
                flush()
        self._connection = connection
        try:
            yield
        finally:
            with self._writing:
                self._connection = None
            if connection is not None:
                # RabbitMQ's own lie unread in the socket, and would count as missed.
                connection.last_heartbeat_received = time.monotonic()

    def _run(self) -> None:
        while True:
            time.sleep(self._interval_s)
            with self._writing:
                if self._connection is not None:
                    self._beat(self._connection)

    def _beat(self, connection: Any) -> None:
        try:
            if connection.connected:
                connection.transport.write(HEARTBEAT)
        # The owner meets the same, and knows what to do.
        except Exception as exc:  # noqa: BLE001
            logger.debug("no heartbeat could be written: %s", exc)


def keep_alive(pool: Any, connection_of: Callable[[], Any], *, heartbeat_s: float) -> None:
    """Let a pool of Celery's that runs jobs in its caller's thread keep a connection alive.

    Args:
        pool: the pool.
        connection_of: returns py-amqp's connection, or None.
        heartbeat_s: of the connection.
    """
    keepalive, apply = Keepalive(heartbeat_s=heartbeat_s), pool.on_apply

    def on_apply(*args: Any, **options: Any) -> Any:
        with keepalive.busy(connection_of()):
            return apply(*args, **options)

    pool.on_apply = on_apply
