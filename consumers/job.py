"""The task base: what every job does around the function that runs it."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import celery
from celery.exceptions import Ignore, Reject, Retry
from celery.utils.log import get_task_logger

from broker.case_file import Reason
from broker.errors import InvalidArguments, InvalidInput, PublishFailed, RabbitryError
from broker.message import NEWS, PUBLISHED
from broker.reply import error_of
from broker.units import parse_duration
from consumers.current import (
    CurrentJob,
    current_job,
    current_jobs,
    enter,
    job_of,
    leave,
    never,
)
from consumers.failure.failure import Failure
from consumers.failure.verdict import Cancelled, GiveUp, TryAgain
from consumers.signature import Array, Signature

__all__ = [
    "Array",
    "Cancelled",
    "CurrentJob",
    "DeadlinePassed",
    "GiveUp",
    "JobTask",
    "TryAgain",
    "current_job",
    "current_jobs",
    "job",
]

logger = get_task_logger("rabbitry.job")

Exceptions = Iterable[type[Exception]]


class DeadlinePassed(RabbitryError):
    """The job was not begun: nobody wants its result any more."""


def job(
    name: str,
    *,
    retry_on: Exceptions = (Exception,),
    give_up_on: Exceptions = (),
    once: str | None = None,
    batch: int | None = None,
    wait: str = "20ms",
    **options: Any,
) -> Callable[[Callable[..., Any]], Any]:
    """Make a function, or an `async def` one, the task of a job.

    The function stays callable as it is. Run by a worker, its arguments are checked against its
    signature first. An exception returns the message to RabbitMQ, which delivers it again after
    the queue's retry delay; past the queue's limit, or at once where trying again is of no use,
    it becomes a dead letter with a case file.

    Args:
        name: of the job, as the topology has it.
        retry_on: exceptions that another attempt may mend; all others are given up on.
        give_up_on: those of them that it cannot mend.
        once: for how long a job that finished is on record, such as ``24h``: delivered or
            published again meanwhile, under the same id, it does not run again, and a call is
            answered with the recorded result. The topology names the store.
        batch: how many waiting messages become one call of the function at most; each of its
            parameters is then given the values of all of them, and it returns a list of results.
        wait: for how long the first message of a batch waits for others, such as ``20ms``.
        options: of Celery's task.

    Raises:
        InvalidInput: `once` is no duration, or what a batch needs is not given.
    """
    base = JobTask
    if once is not None:
        base, options = _once(name, once, options)
    if once is not None and batch is not None:
        raise InvalidInput(f"job {name!r}: a batch cannot run once; leave out `once` or `batch`")

    def decorate(function: Callable[..., Any]) -> Any:
        if batch is None:
            task, given = base, {**options}
            given["takes"] = Signature(name, function, bound=bool(options.get("bind")))
        else:
            task, given = _batch(name, function, batch=batch, wait=wait, options=options)
        return celery.shared_task(
            name=name,
            base=task,
            retry_on=tuple(retry_on),
            give_up_on=tuple(give_up_on),
            **given,
        )(function)

    return decorate


def _once(name: str, once: str, options: dict[str, Any]) -> tuple[type[JobTask], dict[str, Any]]:
    """Return the base of a task whose finished jobs are on record, and its options."""
    # Their own module, and another task: jobs without a record do nothing about it.
    from consumers.once.task import OnceTask

    try:
        once_s = parse_duration(once).total_seconds()
    except ValueError as exc:
        raise InvalidInput(f"job {name!r}: once: {exc}") from None
    if once_s <= 0:
        raise InvalidInput(f"job {name!r}: once={once!r} records nothing; leave it out")
    return OnceTask, {**options, "once_s": once_s}


def _batch(
    name: str, function: Callable[..., Any], *, batch: int, wait: str, options: dict[str, Any]
) -> tuple[type[JobTask], dict[str, Any]]:
    """Return the base of a task that runs many messages in one call, and its options."""
    from consumers.batch.task import BatchTask, batch_options

    return BatchTask, batch_options(name, function, batch=batch, wait=wait, options=options)


class JobTask(celery.Task):  # type: ignore[misc]
    """Celery's task with late ack, RabbitMQ's own retry, and dead letters with a case file."""

    abstract = True
    acks_late = True
    reject_on_worker_lost = True
    Request = "consumers.failure.request:JobRequest"
    # Of the result in the log, in characters.
    resultrepr_maxsize = 200
    # Arguments are checked by the signature, with better words.
    typing = False
    # Not `signature`: that is how Celery makes the parts of a chain, and a retry.
    takes: Signature
    retry_on: tuple[type[Exception], ...] = (Exception,)
    give_up_on: tuple[type[Exception], ...] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        request = self.request
        if request.called_directly:
            return self.run(*args, **kwargs)
        news = self.backend.news_of(request) if request.get(NEWS) else None
        current = job_of(self.name, request, news=news, is_cancelled=self.is_cancelled)
        request.started_ms = round(time.time() * 1000)
        token = enter(current)
        try:
            return self._run(current, args, kwargs)
        except (Reject, Ignore, Retry):
            raise
        except (Exception, SystemExit) as exc:
            if isinstance(exc, SystemExit) and not is_own(exc):
                raise
            self._failed(current, Reason.FAILED, exc)
        finally:
            leave(token)
            if news is not None:
                news.close()

    @property
    def is_cancelled(self) -> Callable[[str], bool]:
        """What says of an id whether its job is cancelled."""
        # An application that no topology was given to has heard of none.
        known = getattr(self.app, "cancelled", None)
        return never if known is None else known.holds

    def _run(self, current: CurrentJob, args: Any, kwargs: Any) -> Any:
        if current.cancelled:
            # Since it was handed to this process.
            raise Cancelled(not_begun(current.name, current.id))
        passed = late(current)
        if passed is not None:
            return self._failed(current, Reason.DEADLINE, passed)
        try:
            args, kwargs = type(self).takes.bind(args, kwargs)
        except InvalidArguments as exc:
            # Those of the message itself; one from within the function is a failure of it.
            return self._failed(current, Reason.ARGUMENTS, exc)
        if current.news is not None:
            current.news.accepted()
        return self.perform(args, kwargs)

    def perform(self, args: Any, kwargs: Any) -> Any:
        """Run the function with arguments that have been checked."""
        return run_to_end(self.run(*args, **kwargs))

    def _failed(self, current: CurrentJob, reason: Reason, exc: BaseException) -> None:
        """End an attempt; RabbitMQ and the worker's own process do the rest.

        Raises:
            Reject: with the failure.
            Exception: the same, for a call: the caller is there to decide. It gets the error now,
                and no second attempt.
        """
        if isinstance(exc, Cancelled):
            # The worker's own process answers a call.
            logger.info("job %s (%s) is cancelled: %s", current.name, current.id, exc)
            raise Reject(self.judge(reason, exc)[0]) from None
        if current.call:
            # Celery passes on another, where this one cannot be pickled.
            text = Failure.of(reason, exc, with_traceback=reason is Reason.FAILED).traceback
            self.request.raised = error_of(exc), text or None
            if isinstance(exc, Exception):
                raise exc
            raise RuntimeError(f"the task ended its process: {exc!r}") from exc
        failure, again = self.judge(reason, exc)
        logger.warning(
            "job %s (%s) failed in attempt %d, %s: %s: %s",
            current.name,
            current.id,
            current.attempt,
            "returned to RabbitMQ" if again else "given up",
            type(exc).__name__,
            failure.message,
            exc_info=exc if failure.traceback else None,
        )
        # Celery logs what it rejects too, with every chained traceback: one is enough.
        raise Reject(failure, requeue=again) from None

    def judge(self, reason: Reason, exc: BaseException) -> tuple[Failure, bool]:
        """Return the failure that an exception is, and whether another attempt may mend it."""
        if isinstance(exc, Cancelled):
            return Failure.of(Reason.CANCELLED, exc, with_traceback=False), False
        again = reason is Reason.FAILED and self._may_mend(exc)
        if reason is Reason.FAILED and not again:
            reason = Reason.GIVEN_UP
        with_traceback = reason in (Reason.FAILED, Reason.GIVEN_UP)
        return Failure.of(reason, exc, with_traceback=with_traceback), again

    def _may_mend(self, exc: BaseException) -> bool:
        """Say whether another attempt may mend a failure of the task."""
        if isinstance(exc, (GiveUp, TryAgain)):
            return isinstance(exc, TryAgain)
        return not isinstance(exc, self.give_up_on) and (
            not isinstance(exc, Exception) or isinstance(exc, self.retry_on)
        )

    def retry(self, *args: Any, **kwargs: Any) -> Any:
        """Send the task again, as Celery does; RabbitMQ holds it until the countdown is over.

        Raises:
            Retry: it is sent, and this run of it is over.
            Reject: it could not be sent; where waiting may mend that, it goes back to its queue.
        """
        try:
            return super().retry(*args, **kwargs)
        except Reject as exc:
            if isinstance(exc.reason, PublishFailed):
                raise Reject(exc.reason, requeue=True) from exc
            raise


class _Loops(threading.local):
    """An event loop for each thread that runs `async def` tasks."""

    _runner: asyncio.Runner | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end, in a copy of the context that it is called in."""
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(coroutine, context=contextvars.copy_context())


_LOOPS = _Loops()


def run_to_end(result: Any) -> Any:
    """Return what a function returned; of an `async def` one, what comes of its coroutine."""
    return _LOOPS.run(result) if inspect.iscoroutine(result) else result


def not_begun(name: str, id: str) -> str:
    """Return the sentence about a job that was cancelled before it began."""
    return f"job {name!r} ({id}) was not begun: it was cancelled"


def late(current: CurrentJob) -> DeadlinePassed | None:
    """Return the error of a job whose deadline has passed, or None."""
    remaining_s = current.remaining_s
    if remaining_s is None or remaining_s > 0:
        return None
    return DeadlinePassed(
        f"job {current.name!r} ({current.id}) was not begun: its deadline passed"
        f" {-remaining_s:.1f} s ago"
    )


def is_own(exc: SystemExit) -> bool:
    """Say whether a task called `sys.exit`; a signal that ends the process comes as one, too."""
    # billiard's handlers exit with 256 less the signal, negative.
    return not isinstance(exc.code, int) or exc.code >= 0


def published_ms_of(request: Any) -> int | None:
    """Return when a request's message was published, milliseconds since 1970-01-01 UTC."""
    value = request.get(PUBLISHED)
    return value if isinstance(value, int) else None
