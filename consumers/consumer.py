"""Celery's consumer without what needs rights or breaks on quorum queues."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from amqp.exceptions import NotFound, PreconditionFailed, RecoverableConnectionError
from celery.app.task import Context
from celery.concurrency import prefork, solo
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.consumer.consumer import Consumer
from celery.worker.consumer.control import Control
from celery.worker.consumer.events import Events
from celery.worker.consumer.tasks import Tasks

from broker.case_file import Reason
from broker.connection import HEARTBEAT_S
from broker.errors import RabbitryError
from broker.message import CALL
from consumers.batch.gather import Gatherer
from consumers.batch.running import Batch
from consumers.cancel.jobs import refusal
from consumers.delays import queue_of
from consumers.deliveries import Deliveries
from consumers.failure.failure import Failure
from consumers.failure.intake import problem_of
from consumers.failure.request import JobRequest
from consumers.job import JobTask
from consumers.keepalive import keep_alive
from consumers.kept import NotStored
from consumers.limits import CONSUMER_TIMEOUT
from consumers.pool.pool import JobTaskPool
from consumers.prefetch import consume, prefetch_of
from consumers.pulse import BEAT_S
from consumers.takeover import Takeover
from consumers.transport import TRANSPORT
from consumers.waker import Waker

logger = get_logger(__name__)

# Between looks for a queue that is missing.
MISSING_QUEUE_PAUSE_S = 0.5
# How many jobs may wait for a slot in the pool itself, where a revoke does not reach them.
AHEAD = 16
# Between attempts to connect, longer each time, and how long each may take: the worker is to
# consume within five seconds of the network's return.
RETRY_FIRST_S, RETRY_MOST_S, ATTEMPT_S = 0.5, 1.0, 4.0
# Between looks for children that have died. Celery hears of a death at once, but where the process
# is not gone yet when it looks, it looks again after five seconds.
LOST_CHILD_S = 0.5


# For what was cancelled before this worker came: ten seconds are enough for all that the stream
# keeps, and an idle one takes milliseconds.
CANCELLATIONS_S = 30.0
CANCELLATIONS_STEP_S = 0.5


class NotRun(RabbitryError):
    """A call was no job of the worker's that got it."""


class JobTasks(Tasks):  # type: ignore[misc]
    """Consumes each queue with a prefetch of its own: RabbitMQ 4.3 denies the global one."""

    requires = (Events,)

    def start(self, c: Any) -> None:
        """Say how long jobs may run, and consume; called for each connection anew."""
        c.update_strategies()
        c.read_cancellations()
        consume(c)


class JobControl(Control):  # type: ignore[misc]
    """Remote control, for workers that the file gives it to."""

    requires = (JobTasks,)


class JobConsumer(Consumer):  # type: ignore[misc]
    """A consumer that declares nothing and meets nobody.

    Left out are mingle and gossip (they find other workers through queues of their own) and
    native delayed delivery (it creates exchanges, queues and bindings).
    """

    # What is answered by connecting anew.
    connection_errors: tuple[type[Exception], ...]
    event_dispatcher: Any
    gatherer: Gatherer | None = None

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc]
        """The steps of a connection, in order."""

        default_steps = (
            "celery.worker.consumer.connection:Connection",
            Events,
            "celery.worker.consumer.heart:Heart",
            JobTasks,
            JobControl,
            "celery.worker.consumer.consumer:Evloop",
            "celery.worker.consumer.agent:Agent",
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Celery takes it away under gevent, whose sockets once did not get over the first one; then
        # an attempt to connect may take minutes.
        self.app.conf.broker_connection_timeout = ATTEMPT_S
        # A queue that is replaced is gone for a moment, and past the consumer time-out RabbitMQ
        # before 4.3 closes the channel; Celery would end the worker.
        self.connection_errors = (*self.connection_errors, NotFound, PreconditionFailed)
        self._waker = Waker()
        self.app.undertaker.serve(self)
        self.app.takeover = self.takeover = Takeover(self)
        self.app.cancellations.start()
        if isinstance(self.pool, solo.TaskPool):
            keep_alive(self.pool, self._wire, heartbeat_s=HEARTBEAT_S)
        prefetch = getattr(self.controller, "prefetch", None)
        if prefetch is not None:
            self.initial_prefetch_count = prefetch

    def _wire(self) -> Any:
        """Return py-amqp's connection, or None."""
        connection = self.connection
        return connection.connection if connection is not None and connection.connected else None

    def register_with_event_loop(self, hub: Any) -> None:
        """Let other threads wake the loop."""
        super().register_with_event_loop(hub)
        self._waker.register(hub)
        hub.call_repeatedly(BEAT_S, self.app.pulse.turned)
        if isinstance(self.pool, prefork.TaskPool):
            hub.call_repeatedly(LOST_CHILD_S, self.pool.maintain_pool)

    def read_cancellations(self) -> None:
        """Wait until all is read that was cancelled before this worker came."""
        deadline = time.monotonic() + CANCELLATIONS_S
        while not self.app.cancellations.wait(CANCELLATIONS_STEP_S):
            # The loop does not turn meanwhile.
            self.app.pulse.beat()
            state.maybe_shutdown()
            if time.monotonic() >= deadline:
                logger.warning("jobs begin before all is read of what was cancelled meanwhile")
                return

    def interrupt(self, call: Callable[[], Any]) -> None:
        """Call in the loop's next turn, which begins at once; safe in a signal handler.

        `call_soon` is not: the loop may hold the lock that it needs, and would wait for itself.
        """
        self._waker.soon(call)

    def call_soon(self, p: Any, *args: Any, **kwargs: Any) -> Any:
        """Call in the loop's next turn, which begins at once; safe from any thread."""
        if not self.hub:
            # Under gevent the loop waits for RabbitMQ meanwhile; the channel's lock is green.
            return self.timer.call_after(0, p, args, kwargs)
        if self._waker.in_loop:
            return super().call_soon(p, *args, **kwargs)
        call = partial(p, *args, **kwargs)
        self._waker.soon(call)
        return call

    def perform_pending_operations(self) -> None:
        """Note a turn of the loop, where there is no hub (gevent)."""
        self.app.pulse.turned()
        super().perform_pending_operations()

    def connect(self) -> Any:
        """Connect, for as long as it takes."""
        connection = super().connect()
        Deliveries(connection.connection)
        if self.restart_count:
            self.app.observer.reconnected()
        return connection

    def ensure_connected(self, conn: Any) -> Any:
        """Connect; each attempt counts as a turn of the loop, which does not turn meanwhile."""
        pulse = self.app.pulse

        def failed(exc: Exception, interval_s: float) -> None:
            pulse.trouble = str(exc)
            logger.error("no connection to %s: %s; again in %g s", conn.as_uri(), exc, interval_s)

        def turn() -> None:
            pulse.beat()
            state.maybe_shutdown()

        found = conn.ensure_connection(
            failed,
            interval_start=RETRY_FIRST_S,
            interval_step=RETRY_FIRST_S,
            interval_max=RETRY_MOST_S,
            callback=turn,
        )
        self.first_connection_attempt = False
        if not self.hub:
            # Whoever finds it lost would make it anew by itself, without a consumer.
            found._ensure_connection = partial(_still_connected, found)
        return found

    def on_close(self) -> None:
        """Forget what the lost connection brought and no slot has begun."""
        if isinstance(self.pool, JobTaskPool):
            self.pool.look_for_begun()
        for request in tuple(state.reserved_requests):
            if request.time_start is None and isinstance(request, (JobRequest, Batch)):
                request.lost()
        super().on_close()

    def update_strategies(self) -> None:
        """Give each job its time limit, and each consumer a time-out that is longer."""
        queues, limits = self.app.amqp.queues.consume_from, self.app.limits
        # The messages of a batch are one call.
        calls = getattr(self.controller, "calls", None) or self.initial_prefetch_count
        rounds = math.ceil(calls / (self.pool.num_processes or 1)) or 1
        for queue in queues.values():
            timeout_s = limits.timeout_s(queue.name, queues=queues, rounds=rounds)
            if timeout_s is not None:
                queue.consumer_arguments = {CONSUMER_TIMEOUT: round(timeout_s * 1000)}
        # Other pools cannot end a job.
        if isinstance(self.pool, prefork.TaskPool):
            for name, task in self.app.tasks.items():
                if isinstance(task, JobTask):
                    task.time_limit = limits.limit_s(name, queues, rounds=rounds)
        super().update_strategies()
        self._make_room()

    def _make_room(self) -> None:
        """Let the pool have jobs ahead where RabbitMQ gives more than there are slots."""
        semaphore, slots = self.controller.semaphore, self.pool.num_processes or 0
        if semaphore is None or not isinstance(self.pool, JobTaskPool):
            return
        ahead = min(sum(prefetch_of(self).values()) - slots, slots * AHEAD)
        if (more := slots + ahead - semaphore.initial_value) > 0:
            semaphore.grow(more)

    def call_soon_ack(self, p: Any, *args: Any, **kwargs: Any) -> Any:
        """Acknowledge or reject: at once in the loop, whose turn writes what it collects."""
        if self.hub and self._waker.in_loop:
            return p(*args, **kwargs)
        return super().call_soon_ack(p, *args, **kwargs)

    def connection_for_read(self, heartbeat: float | None = None) -> Any:
        """Connect to consume, by a connection that reads and acknowledges many at once."""
        return self.ensure_connected(
            self.app.connection_for_read(heartbeat=heartbeat, transport=TRANSPORT)
        )

    def _drop_dispatcher(self) -> None:
        """Take the sender of events out of a loop that is none of kombu's; who has it keeps it.

        There Celery waits for a tenth of a second on its connection after every message.
        """
        if not self.hub and not self.app.conf.worker_enable_remote_control:
            self.event_dispatcher = None

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        """Take out what is no job, and hand on what is not due, before either takes a slot."""
        self._drop_dispatcher()
        handle = super().create_task_handler(*args, **kwargs)
        waiting, jobs, undertaker = self.app.waiting, self.strategies, self.app.undertaker
        known, cancelled = self.app.content_types, self.app.cancelled

        def on_message(message: Any) -> Any:
            problem = problem_of(message, jobs, known)
            if problem is not None:
                return self.give_up(message, problem)
            if waiting.take(message, self) or self.takeover.take(message):
                return None
            cancellation = cancelled.about(message.headers)
            if cancellation is not None:
                return self.give_up(message, refusal(message.headers, cancellation))
            spent = undertaker.exhausted(message)
            return handle(message) if spent is None else self.give_up(message, spent)

        # What was gathered before came over a connection that is lost.
        self.close_gatherer()
        gatherer = self.gatherer = Gatherer(self, on_message)
        if not gatherer.is_needed:
            return on_message
        return lambda message: gatherer.take(message) or on_message(message)

    def close_gatherer(self) -> list[Batch]:
        """Gather no more batches; returns what no slot was asked for."""
        return [] if self.gatherer is None else list(self.gatherer.close())

    def give_up(self, message: Any, failure: Failure) -> None:
        """End a message that is no job: a dead letter, or the answer to a call."""
        headers, properties = message.headers, message.properties
        id, reply_to = headers.get("id"), properties.get("reply_to")
        is_call = headers.get(CALL) and isinstance(id, str) and reply_to
        is_cancelled = failure.reason is Reason.CANCELLED
        if is_cancelled:
            self._count(message, "revoked", job=str(headers.get("task")))
        else:
            self._count(message, "answered" if is_call else "dead")
        if not is_call:
            self._keep(headers, failure)
            self.app.undertaker.bury(message, failure)
            return
        logger.error("call %s is answered with an error (%s): %s", id, failure.reason, failure)
        correlation_id = properties.get("correlation_id") or id
        request = Context({**headers, "reply_to": reply_to, "correlation_id": correlation_id})
        request.hostname = self.hostname
        try:
            with self.app.backend.without_waiting() as replies:
                if is_cancelled:
                    self.app.backend.mark_as_revoked(id, failure.message, request=request)
                else:
                    error = NotRun(str(failure))
                    self.app.backend.store_result(id, error, "FAILURE", request=request)
        # Such as an id that fits into no message.
        except Exception:
            logger.exception("call %s could not be answered; it goes back to its queue", id)
            self.app.undertaker.give_back(message)
        else:
            acknowledge = partial(message.ack_log_error, logger, self.connection_errors)
            self.app.undertaker.after(replies, message, acknowledge)

    def _keep(self, headers: Mapping[str, Any], failure: Failure) -> None:
        """Keep for who reads a job's result later that it ends without one."""
        id, kept, backend = headers.get("id"), self.app.kept, self.app.backend
        if kept is None or not isinstance(id, str) or not kept.keeps(headers.get("task")):
            return
        request = Context(headers)
        request.hostname = self.hostname
        try:
            if failure.reason is Reason.CANCELLED:
                backend.mark_as_revoked(id, failure.message, request=request)
            else:
                backend.store_result(id, NotRun(str(failure)), "FAILURE", request=request)
        except NotStored as exc:
            logger.error("job %s (%s) ends without a result: %s", headers["task"], id, exc)
        # Its case file tells the same.
        except Exception:
            logger.exception("job %s (%s) ends without a result", headers["task"], id)

    def _count(self, message: Any, outcome: str, *, job: str = "") -> None:
        """Count what is no job; under no name, for anybody may think of any number of them."""
        observer = self.app.observer
        queue = queue_of(self, message.delivery_info.get("consumer_tag")) or ""
        redelivered = bool(message.delivery_info.get("redelivered"))
        observer.received(job, queue, waited_s=None, redelivered=redelivered)
        observer.ended(job, queue, outcome, ran_s=None)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Bury what cannot be decompressed; Celery would acknowledge it away."""
        self.give_up(message, Failure.of(Reason.UNDECODABLE, exc, with_traceback=False))

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Bury what Celery takes for no task."""
        self.give_up(message, Failure.of(Reason.SHAPE, exc, with_traceback=False))

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Bury what names no task."""
        self.give_up(message, Failure(Reason.SHAPE, "", "the message names no task"))

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Bury what this worker has no task for."""
        self.give_up(message, Failure.of(Reason.UNKNOWN_JOB, exc, with_traceback=False))

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Begin anew, after a pause where a queue is missing."""
        self.app.pulse.trouble = getattr(exc, "reply_text", "") or str(exc)
        if isinstance(exc, NotFound):
            logger.warning(
                "no queue to consume: %s; looking again in %s s",
                exc.reply_text,
                MISSING_QUEUE_PAUSE_S,
            )
            time.sleep(MISSING_QUEUE_PAUSE_S)
        elif isinstance(exc, PreconditionFailed):
            logger.warning(
                "RabbitMQ closed the channel: %s; connecting again in %s s",
                exc.reply_text,
                MISSING_QUEUE_PAUSE_S,
            )
            time.sleep(MISSING_QUEUE_PAUSE_S)
        super().on_connection_error_after_connected(exc)


def _still_connected(connection: Any, *_: Any, **__: Any) -> Any:
    """Return what a connection of kombu's is connected by; raise where it is lost."""
    if not connection.connected:
        raise RecoverableConnectionError("the connection is lost")
    return connection._connection
