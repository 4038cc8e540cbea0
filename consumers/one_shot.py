"""`worker run --one-shot`: stops a worker when nothing is left to run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from celery.utils.log import get_logger
from celery.worker import state

from broker.connection import Address, connect, translated
from broker.errors import BrokerUnavailable

logger = get_logger("rabbitry.worker")

LOOK_S = 0.2
# What RabbitMQ has just handed over is in no count of anybody's.
_LOOKS = 2


class OneShot:
    """Looks from a thread and a connection of its own until the queues are drained.

    What RabbitMQ holds back (a delayed retry, a job with a delay) is not ready, and not waited
    for.

    Args:
        address: where RabbitMQ is.
        queues: that the worker consumes.
        is_busy: whether anything of the worker's own is under way beside its jobs.
        drained: called once, in the thread.
    """

    def __init__(
        self,
        address: Address,
        queues: Sequence[str],
        *,
        is_busy: Callable[[], bool],
        drained: Callable[[], None],
    ) -> None:
        self._address = address
        self._queues = queues
        self._is_busy = is_busy
        self._drained = drained

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._run, name="rabbitry-one-shot", daemon=True).start()

    def _run(self) -> None:
        pause = threading.Event()
        looks, seen = 0, -1
        while looks < _LOOKS:
            pause.wait(LOOK_S)
            try:
                ready = self._ready()
            except BrokerUnavailable as exc:
                # The worker says so too, and connects again.
                logger.debug("nobody knows whether the queues are drained: %s", exc)
                looks = 0
                continue
            taken = sum(state.total_count.values())
            idle = not ready and not state.reserved_requests and not self._is_busy()
            looks = looks + 1 if idle and taken == seen else 0
            seen = taken
        logger.info("the queues are drained")
        self._drained()

    def _ready(self) -> int:
        connection = connect(self._address)
        try:
            with translated(self._address), connection.channel() as channel:
                counts: list[Any] = [
                    channel.queue_declare(queue, passive=True).message_count
                    for queue in self._queues
                ]
            return sum(counts)
        finally:
            connection.release()
