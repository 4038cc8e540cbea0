"""SIGTERM: take no more jobs, finish what runs within the grace, return the rest; then end.

Celery stops its event loop first and waits for the pool afterwards, when nobody reads the
children's results any more: jobs that finish meanwhile are not acknowledged and run again, and
the children wait half a minute for somebody to listen. Here the loop goes on until the last
result is in, what is not done goes back to RabbitMQ uncounted, the connection is closed in order
before anything else ends, and a watchdog ends the process soon after the grace, whatever happens. A
second signal ends it at once.
"""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from celery import signals
from celery.exceptions import WorkerShutdown
from celery.utils.log import get_logger
from celery.worker import state

from consumers.batch.running import Batch
from consumers.ending import Ending, Watchdog, leave

logger = get_logger("rabbitry.worker")

CHECK_S = 0.05
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
# After the grace the process has so long to return what runs; then it ends by force.
LAST_S = 0.85
# For results that children had written when they were ended.
_RESULTS_S = 0.1
# Between the last that is waited for of RabbitMQ and the end by force.
_SPARE_S = 0.1
# For Celery to stop what has nothing more to do.
_CELERY_S = 2.0
_SIGNALLED = 128


class Shutdown:
    """Ends one worker in order.

    Args:
        worker: Celery's worker.
        grace_s: seconds that running jobs are given; then they are returned to RabbitMQ.
        on_begin: called when it begins to stop.
    """

    def __init__(
        self, worker: Any, *, grace_s: float, on_begin: Callable[[], None] = lambda: None
    ) -> None:
        self._worker = worker
        self._on_begin = on_begin
        self._grace_s = grace_s
        self._pid = os.getpid()
        self._ending = Ending(worker)
        self._watchdog = Watchdog(self._ending)
        self._deadline: float | None = None
        self._green: Any = None
        self._main: Any = None
        self._idle = self._over = False

    @property
    def began(self) -> bool:
        """Whether the worker stops."""
        return self._deadline is not None

    def install(self) -> None:
        """Take the signals over; to be called where Celery would set its own handlers."""
        if self._worker.hub is None:
            import gevent

            self._green, self._main = gevent, gevent.getcurrent()
            self._watchers = [
                gevent.signal_handler(number, self._on_signal, number) for number in SIGNALS
            ]
            return
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None = None) -> None:
        if os.getpid() != self._pid:
            # A child that was forked a moment ago has the handler still.
            os._exit(_SIGNALLED + number)
        if self.began or number == signal.SIGQUIT:
            self._ending.at_once(_SIGNALLED + number)
        self.begin()

    def begin(self) -> None:
        """Begin to stop; safe in a signal handler."""
        if self.began:
            return
        self._deadline = time.monotonic() + self._grace_s
        self._watchdog.end_at(self._deadline + LAST_S)
        self._worker.app.pulse.stopping = True
        self._on_begin()
        if self._ending.channel is None:
            # Nothing is consumed; RabbitMQ has back what a lost connection held.
            self._ending.at_once(0)
        consumer = self._worker.consumer
        # From now on, also for what has been read from the connection already.
        consumer.task_consumer.on_message = consumer.app.undertaker.give_back
        consumer.on_connection_error_after_connected = self._lost
        if self._green is not None:
            self._green.spawn(self._go_on)
            return
        consumer.interrupt(self._begin_in_loop)

    def _begin_in_loop(self) -> None:
        self._stop_consuming()
        self._worker.hub.call_repeatedly(CHECK_S, self._check)

    def _go_on(self) -> None:
        """Do without an event loop what else it would call."""
        self._stop_consuming()
        while not self._over:
            self._green.sleep(CHECK_S)
            self._check()

    def _lost(self, exc: Exception) -> None:
        logger.warning("the connection is lost while stopping, and with it what ran: %s", exc)
        self._ending.at_once(0)

    def _stop_consuming(self) -> None:
        self._ending.cancel()
        self._return_waiting()
        logger.info(
            "stopping: no more jobs are taken, %d are finished first", len(state.reserved_requests)
        )
        signals.worker_shutting_down.send(
            sender=self._worker.hostname, sig="SIGTERM", how="Warm", exitcode=0
        )

    def _return_waiting(self) -> None:
        """Return what no slot has begun."""
        gathered = self._worker.consumer.close_gatherer()
        for request in (*gathered, *_waiting(self._worker)):
            state.task_ready(request)
            if isinstance(request, Batch):
                request.give_back()
            else:
                self._worker.app.undertaker.give_back(request._message)
                request.lost()

    @property
    def _is_done(self) -> bool:
        return not (
            state.reserved_requests
            or self._worker.app.undertaker.busy
            or not self._ending.cancelled
        )

    def _check(self) -> None:
        assert self._deadline is not None
        if self._over:
            return
        if self._is_done:
            # What a result has led to (an ack, a dead letter) is a turn of the loop behind it.
            if self._idle:
                self._over = True
                self._finish()
            self._idle = True
        elif time.monotonic() >= self._deadline:
            self._over = True
            self._expire()
        else:
            self._idle = False

    def _finish(self) -> None:
        if self._green is not None:
            self._green.kill(self._main, WorkerShutdown(0))
        state.should_stop = 0

    def settle(self) -> None:
        """End what has nothing more to do, once the loop does not turn any more; Celery's first.

        RabbitMQ may be slow, and has the whole grace to say that it has all acknowledgements.
        """
        if not self.began:
            return
        self._ending.close(within_s=self._left_s)
        self._watchdog.end_at(time.monotonic() + _CELERY_S)
        self._ending.stop_children()

    @property
    def _left_s(self) -> float:
        """Seconds until the end by force, but for a few."""
        assert self._deadline is not None
        return self._deadline + LAST_S - _SPARE_S - time.monotonic()

    def _expire(self) -> None:
        logger.warning(
            "the grace of %g s is over: %d jobs go back to RabbitMQ",
            self._grace_s,
            len(state.reserved_requests),
        )
        pool = self._worker.pool
        if not pool.uses_semaphore:
            # Threads cannot be ended but with their process.
            self._give_up()
            return
        # One that is closed replaces no children, and calls no job of theirs lost.
        pool.close()
        # Celery ends by any other value than False; `JobRequest` asks whether it is None.
        state.should_terminate = False
        self._ending.kill_children()
        self._worker.hub.call_later(_RESULTS_S, self._give_up)

    def _give_up(self) -> None:
        self._ending.last_words(within_s=self._left_s)
        signals.worker_shutdown.send(sender=self._worker)
        leave(0)


def _waiting(worker: Any) -> list[Any]:
    """Take the requests out that wait for a slot."""
    requests = []
    if worker.semaphore is not None:
        requests += [args[0] for _, args, _ in worker.semaphore._waiting]
        worker.semaphore._waiting.clear()
    recall = getattr(worker.pool, "recall", None)
    if recall is not None:
        requests += recall()
    executor = getattr(worker.pool, "executor", None)
    if executor is not None:
        # ThreadPoolExecutor cancels a future, but does not say whose it was.
        running = []
        while True:
            try:
                item = executor._work_queue.get_nowait()
            except queue.Empty:
                break
            if item is not None and item.future.cancel():
                requests.append(item.args[3].__self__)
            else:
                running.append(item)
        for item in running:
            executor._work_queue.put(item)
    return requests
