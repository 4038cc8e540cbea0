"""Celery's prefork pool, in which jobs wait in one inbox for the next process that is free.

Celery writes a job to a process that it has chosen, and the next one only when it has read the
result: meanwhile the process sleeps, and waking it costs more than a short job. Here processes take
what waits. How much waits is up to the semaphore of Celery's worker: nothing where RabbitMQ gives
no more messages than there are slots.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from billiard.pool import ACK, TERMINATE
from celery.concurrency import prefork
from celery.concurrency.asynpool import AsynPool
from celery.utils.functional import noop
from celery.utils.log import get_logger

from consumers.pool.child import JobChild
from consumers.pool.inbox import Inbox
from consumers.pool.payload import payload_of
from consumers.pool.results import JobResults

logger = get_logger("rabbitry.pool")

# Between looks for jobs that have begun, and for those that have run too long.
LOOK_S = 0.1
# Between a process's last breath and its end.
ENDING_S = 0.02
# How long a process that has taken a job may need to say so.
SILENT_S = 1.0


class JobPool(AsynPool):  # type: ignore[misc]
    """billiard's pool with one inbox."""

    ResultHandler = JobResults

    def __init__(self, *args: Any, **options: Any) -> None:
        self._inbox = Inbox()
        self._limited: dict[int, Any] = {}
        self._hub: Any = None
        self._waits_for_room = False
        self.Worker = partial(JobChild, self._inbox)
        # The collector writes to every object that it looks at, and a page that is written to is no
        # longer shared with the processes that are forked here: it leaves alone what there is now.
        gc.freeze()
        super().__init__(*args, **options)
        self._stop_task_handler = self._end_children

    # -- jobs on their way to the processes -----------------------------------------------

    def _create_write_handlers(self, hub: Any, *args: Any, **options: Any) -> None:
        super()._create_write_handlers(hub, *args, **options)
        self._hub, self._waits_for_room = hub, False
        self._quick_put = self._put
        # Celery looks for processes to write to, in every turn of its loop.
        self.on_poll_start = noop

    def _put(self, message: Any) -> None:
        job = self._cache[message[1][0]]
        job._payload = payload_of(message)
        job._is_out = False
        self.outbound_buffer.append(job)
        self._pump()

    def _pump(self) -> None:
        """Put into the inbox what there is room for."""
        outbound, cache = self.outbound_buffer, self._cache
        while outbound:
            job = outbound[0]
            if job._job in cache and not job._accepted:
                if not self._inbox.put(job._job, *job._payload):
                    self._wait_for_room(True)
                    return
                job._is_out = True
            outbound.popleft()
        self._wait_for_room(False)

    def _wait_for_room(self, waits: bool) -> None:
        if waits == self._waits_for_room or self._hub is None:
            return
        self._waits_for_room = waits
        if waits:
            self._hub.add_writer(self._inbox, self._pump)
        else:
            self._hub.remove_writer(self._inbox)

    def recall(self) -> list[Callable[..., Any]]:
        """Take back what no process has begun; returns the jobs' callbacks."""
        jobs = [self._cache.get(number) for number in self._inbox.drain()]
        jobs += self.outbound_buffer
        self.outbound_buffer.clear()
        self._wait_for_room(False)
        found = [job for job in jobs if job is not None and not job._accepted]
        for job in found:
            job.discard()
        return [job._callback for job in found]

    def flush(self) -> None:
        """Drop what no process has begun: the connection that it came over is lost."""
        if self._state != TERMINATE:
            self.recall()
        super().flush()

    def join(self) -> None:
        """Wait for all processes to end."""
        super().join()
        self._inbox.close()

    def terminate(self) -> None:
        """End all processes."""
        super().terminate()
        self._inbox.close()

    def _end_children(self, _handler: Any) -> None:
        self.recall()
        for _ in self._pool:
            self._inbox.put_end()

    # -- processes that are gone ----------------------------------------------------------

    def _event_process_exit(self, hub: Any, proc: Any) -> None:
        super()._event_process_exit(hub, proc)
        if proc in self._pool:
            # Its pipes are closed, and the system still ends it; Celery looks again in 5 s.
            hub.call_later(ENDING_S, self.maintain_pool)

    def look_for_begun(self) -> None:
        """Note the jobs that processes have begun and not told of yet."""
        for proc in tuple(self._pool):
            last = proc.begun.last()
            job = None if last is None else self._cache.get(last[0])
            if last is not None and job is not None and not job._accepted:
                number, at = last
                self._result_handler.on_state_change((ACK, (number, None, at, proc.pid, None)))

    def _join_exited_workers(self, shutdown: bool = False) -> Any:
        self.look_for_begun()
        exited = super()._join_exited_workers(shutdown=shutdown)
        if exited and not shutdown and self._hub is not None:
            self._look_for_taken()
        return exited

    def _look_for_taken(self) -> None:
        """Look for jobs that a process has taken and cannot have told of."""
        waiting = [self._cache.get(number) for number in self._inbox.drain()]
        self.outbound_buffer.extendleft(job for job in reversed(waiting) if job is not None)
        for job in self.outbound_buffer:
            job._is_out = False
        silent = [job for job in self._cache.values() if job._is_out and not job._accepted]
        self._pump()
        if silent:
            self._hub.call_later(SILENT_S, self._put_again, silent)

    def _put_again(self, silent: list[Any]) -> None:
        for proc in tuple(self._pool):
            # This process itself may have been slow to read.
            self.process_flush_queues(proc)
        lost = [job for job in silent if job._job in self._cache and not job._accepted]
        for job in lost:
            logger.warning("job %s goes to another process: its own took it and ended", job)
            job._is_out = False
        self.outbound_buffer.extendleft(reversed(lost))
        self._pump()

    def _process_cleanup_queues(self, proc: Any) -> None:
        # What it was writing when it was killed has no end: its pipe is of no use to another one.
        if proc.dead:
            return
        self._result_handler.forget(proc.outqR_fd)
        if self._hub is not None:
            self.on_process_down(proc)
        proc.dead = True
        try:
            queues = self._find_worker_queues(proc)
        except ValueError:
            return
        if self.destroy_queues(queues, proc):
            self._queues[self.create_process_queues()] = None

    def process_flush_queues(self, proc: Any) -> None:
        """Read what a process has told before it ended."""
        reader = proc.outq._reader
        try:
            while not reader.closed and self._result_handler.read(reader.fileno()):
                pass
        except (OSError, EOFError):
            return

    # -- time limits ----------------------------------------------------------------------

    def _create_timelimit_handlers(self, hub: Any) -> None:
        # Celery sets a timer for each job, which its heap keeps until the limit is over.
        self.on_timeout_set = self._limit
        self.on_timeout_cancel = self._unlimit
        hub.call_repeatedly(LOOK_S, self._check_limits)

    def _limit(self, job: Any, soft_s: float | None, hard_s: float | None) -> None:
        if soft_s or hard_s:
            job._soft_over = False
            self._limited[job._job] = job

    def _unlimit(self, job: Any) -> None:
        self._limited.pop(job._job, None)

    def _check_limits(self) -> None:
        self.look_for_begun()
        now = monotonic()
        if not any(_over(job, now) for job in self._limited.values()):
            return
        # What has ended in time may have said so while this process was busy.
        for proc in tuple(self._pool):
            self.process_flush_queues(proc)
        for job in tuple(self._limited.values()):
            if self._has_ended(job):
                continue
            match _over(job, now):
                case "hard":
                    self._unlimit(job)
                    self.on_hard_timeout(job)
                case "soft":
                    job._soft_over = True
                    self.on_soft_timeout(job)

    def _has_ended(self, job: Any) -> bool:
        """Say whether a job's process has begun another: its reply alone is still on its way."""
        return any(
            other._worker_pid == job._worker_pid and other._time_accepted > job._time_accepted
            for other in tuple(self._cache.values())
            if other._accepted
        )


def _over(job: Any, now: float) -> str | None:
    """Return which limit a job has passed that nothing was done about, or None."""
    ran_s = now - job._time_accepted
    if job._timeout and ran_s >= job._timeout:
        return "hard"
    if job._soft_timeout and ran_s >= job._soft_timeout and not job._soft_over:
        return "soft"
    return None


class JobTaskPool(prefork.TaskPool):  # type: ignore[misc]
    """Celery's pool of processes, with jobs that wait in one inbox."""

    Pool = JobPool

    def look_for_begun(self) -> None:
        """Note the jobs that processes have begun and not told of yet, while there are any."""
        if self._pool is not None:
            self._pool.look_for_begun()

    def recall(self) -> list[Any]:
        """Take back the requests that no process has begun."""
        return [callback.__self__ for callback in self._pool.recall()]
