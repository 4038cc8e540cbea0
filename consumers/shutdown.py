"""SIGTERM: stop consuming, finish what runs, then stop; a second signal ends at once.

Celery stops its event loop first and waits for the pool afterwards, when nobody reads the
children's results any more: jobs that finish meanwhile are not acknowledged and run again, and
the children wait half a minute for somebody to listen. Here the loop goes on until the last
result is in.
"""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Any

from celery import signals
from celery.utils.log import get_logger
from celery.worker import state

logger = get_logger("rabbitry.worker")

CHECK_S = 0.05
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Shutdown:
    """Ends one worker in order.

    Args:
        worker: Celery's worker.
        grace_s: seconds that running jobs are given; then they are returned to RabbitMQ.
    """

    def __init__(self, worker: Any, *, grace_s: float) -> None:
        self._worker = worker
        self._grace_s = grace_s
        self._deadline: float | None = None

    def install(self) -> None:
        """Take the signals over from Celery as soon as it has set its own handlers."""
        # Celery sets its handlers while it starts and says afterwards that it is ready.
        signals.worker_ready.connect(self._set_handlers, weak=False)

    def _set_handlers(self, **_: Any) -> None:
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._deadline is not None:
            # Celery looks at this flag on every turn of its loop, and ends the children.
            state.should_terminate = 1
            return
        self._deadline = time.monotonic() + self._grace_s
        # The worker's own: the current one of the process is forgotten when a connection is lost.
        hub = self._worker.hub
        if hub is None:
            # Without an event loop (gevent) Celery's own way is the only one.
            state.should_stop = 0
            return
        hub.call_soon(self._stop_consuming)
        hub.call_repeatedly(CHECK_S, self._check)

    def _stop_consuming(self) -> None:
        running = len(state.reserved_requests)
        logger.info("stopping: no more jobs are taken, %d are finished first", running)
        consumer = self._worker.consumer
        if consumer is not None and consumer.task_consumer is not None:
            consumer.task_consumer.cancel()

    def _check(self) -> None:
        assert self._deadline is not None
        if not state.reserved_requests and not self._worker.app.undertaker.busy:
            state.should_stop = 0
        elif time.monotonic() >= self._deadline:
            logger.warning(
                "the grace of %g s is over: %d jobs go back to RabbitMQ",
                self._grace_s,
                len(state.reserved_requests),
            )
            state.should_terminate = 0
