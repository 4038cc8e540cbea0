"""How a worker's process ends where Celery's own way may wait: at once, nothing left behind."""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from billiard.pool import TERMINATE

from consumers.green import is_patched

logger = logging.getLogger("rabbitry.worker")

# Each bounds one step of an end at once: RabbitMQ may answer no more.
_WRITE_S = 0.2
_CLOSE_S = 0.25
# Before a process ends by force, for what can still be returned.
_LAST_WORDS_S = 0.45
_NAP_S = 0.05
# For children to say good-bye by Celery's `worker_process_shutdown`.
_CHILDREN_S = 0.2
_CANCEL, _NACK = (60, 30), (60, 120)


class Ending:
    """The last steps of one worker's process.

    Args:
        worker: Celery's worker.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._pid = os.getpid()
        self._closing = False

    @property
    def channel(self) -> Any:
        """The channel that the jobs came over; None without a connection."""
        consumer = getattr(self._worker, "consumer", None)
        task_consumer = getattr(consumer, "task_consumer", None)
        if consumer is None or consumer.connection is None or task_consumer is None:
            return None
        channel = task_consumer.channel
        connection = getattr(channel, "connection", None)
        return channel if connection is not None and connection.connected else None

    def cancel(self) -> None:
        """Ask RabbitMQ for no more jobs, without waiting for its answer."""
        channel = self.channel
        if channel is None:
            return
        for tag in self._worker.consumer.task_consumer._active_tags.values():
            # py-amqp waits for the answer, or forgets the consumer before the last delivery.
            channel.send_method(_CANCEL, "sb", (tag, False))

    @property
    def cancelled(self) -> bool:
        """Whether RabbitMQ has answered that nothing more comes."""
        channel = self.channel
        return channel is None or not channel.callbacks

    def return_all(self) -> None:
        """Return to its queue whatever is not settled, uncounted."""
        channel = self.channel
        if channel is not None:
            # Tag 0 with `multiple` means all there are.
            channel.send_method(_NACK, "Lbb", (0, True, True))

    def close(self, *, within_s: float) -> None:
        """Close the connection in order, and wait until RabbitMQ says that it is.

        It has dealt with all that was written then. Of a connection that is just gone it may
        forget the last acknowledgements, also those that it has: these jobs would run again.

        Args:
            within_s: how long to wait; 0 and less for not at all.
        """
        channel = self.channel
        # Of two threads that wait for one answer one would wait in vain.
        if channel is None or self._closing or within_s <= 0:
            return
        self._closing = True
        with contextlib.suppress(Exception):
            connection = channel.connection
            connection.transport.sock.settimeout(within_s)
            connection.close()

    @property
    def _children(self) -> tuple[Any, ...]:
        pool = getattr(getattr(self._worker, "pool", None), "_pool", None)
        return tuple(getattr(pool, "_pool", None) or ())

    def kill_children(self) -> None:
        """End the processes that run jobs, however they are."""
        self._signal_children(signal.SIGKILL)

    def stop_children(self) -> None:
        """End processes that run nothing any more, so that Celery does not wait for them.

        Asked to by Celery they may wait for half a minute to hear that their results have been
        read, which they have; and Celery looks at them every half of a second.
        """
        pool = self._worker.pool
        if not self._children:
            return
        # One that is closed replaces no children.
        pool.close()
        self._signal_children(signal.SIGTERM)
        # One that has said good-bye sleeps until its parent ends it.
        time.sleep(_CHILDREN_S)
        self.kill_children()
        billiard, pool._pool = pool._pool, None
        billiard._state = TERMINATE
        # Of the interpreter's end.
        billiard._terminate.cancel()

    def _signal_children(self, number: int) -> None:
        for process in self._children:
            pid = getattr(process, "pid", None)
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def at_once(self, code: int) -> None:
        """End the process now: what runs is ended, and returned if RabbitMQ still listens."""
        if os.getpid() != self._pid:
            return  # a child that has inherited the handler, and is none of the worker's
        self.kill_children()
        # In a thread: this may be a signal handler, amidst a write that holds the channel's lock.
        # Not one of `threading`'s, which may be amidst a start of its own.
        said = _thread.allocate_lock()
        said.acquire()

        def say() -> None:
            self.last_words(within_s=_CLOSE_S)
            said.release()

        _thread.start_new_thread(say, ())
        said.acquire(timeout=_WRITE_S + _CLOSE_S)
        leave(code)

    def last_words(self, *, within_s: float) -> None:
        """Return what is not settled, and close the connection.

        Args:
            within_s: how long to wait for RabbitMQ's answer.
        """
        if self._closing:
            return
        with contextlib.suppress(Exception):
            # First: what is returned would come again at once.
            self.cancel()
            self.return_all()
            self.close(within_s=within_s)


class Watchdog:
    """Ends the process at a time, with code 0, whatever its threads and its event loop do.

    Args:
        ending: of the process.
    """

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        self._at: float | None = None

    def end_at(self, when: float) -> None:
        """Set, or bring forward, the end of the process, by `time.monotonic`."""
        running = self._at is not None
        self._at = when if self._at is None else min(self._at, when)
        if not running:
            start, sleep = native()
            start(self._wait, (sleep,))

    def _wait(self, sleep: Callable[[float], None]) -> None:
        self._sleep_until(sleep, before_s=_LAST_WORDS_S)
        self._ending.kill_children()
        if not is_patched():
            # The event loop is busy with a job (solo), or waits for RabbitMQ.
            last_words, within = self._ending.last_words, {"within_s": _LAST_WORDS_S}
            threading.Thread(target=last_words, kwargs=within, daemon=True).start()
        self._sleep_until(sleep, before_s=0)
        os.write(2, b"the worker ends by force: a job, or RabbitMQ, did not let go\n")
        os._exit(0)

    def _sleep_until(self, sleep: Callable[[float], None], *, before_s: float) -> None:
        # The time may be brought forward meanwhile.
        while self._at is not None:
            remaining_s = self._at - before_s - time.monotonic()
            if remaining_s <= 0:
                return
            sleep(min(remaining_s, _NAP_S))


def leave(code: int) -> None:
    """End the process without waiting for threads that run jobs."""
    with contextlib.suppress(Exception):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def native() -> tuple[Callable[..., Any], Callable[[float], None]]:
    """Return what starts a thread of the system's own, and sleeps in it, also under gevent."""
    if not is_patched():
        return _thread.start_new_thread, time.sleep
    original = sys.modules["gevent.monkey"].get_original
    return original("_thread", "start_new_thread"), original("time", "sleep")
