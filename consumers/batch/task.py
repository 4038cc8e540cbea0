"""The task of a batch job: one call for many messages, and each of them with its own ending."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celery import current_app, signals
from celery.exceptions import TaskRevokedError
from celery.utils.log import get_logger
from kombu.exceptions import EncodeError

from broker.body import decode
from broker.case_file import Reason
from broker.errors import InvalidArguments, InvalidInput, InvalidMessage
from broker.units import parse_duration
from consumers.batch.columns import Columns
from consumers.batch.item import Ending, Failed, Item, Report, Word, context_of, job_of
from consumers.current import CurrentJob, current_job, enter_batch, leave_batch
from consumers.failure.failure import Failure
from consumers.failure.verdict import Cancelled, GiveUp
from consumers.job import JobTask, is_own, late, not_begun, run_to_end

logger = get_logger("rabbitry.batches")

# RabbitMQ's prefetch is a number of 16 bits; more than a worker should hold in memory anyway.
MOST = 10_000
# Longer, and RabbitMQ's consumer time-out and SIGTERM's grace come into it.
MOST_WAIT_S = 60.0


class WrongResults(GiveUp):
    """A batch job did not return a result a message; nobody knows whose is whose."""


class BatchTask(JobTask):
    """The task of a job whose messages are run many at a time."""

    abstract = True
    columns: Columns
    size: int
    wait_s: float

    def perform(self, args: Any, kwargs: Any) -> Any:
        """Run a single message, as a batch of one.

        Raises:
            Exception: what the task raised, or gave as the message's result.
        """
        job = current_job()
        assert job is not None
        row = self.columns.row(args, kwargs)
        (result,) = self._call([row], lambda: (job,), [job.deadline_s])
        if isinstance(result, BaseException):
            raise result
        return result

    def run_all(self, items: Sequence[Item], *, hostname: str) -> Report:
        """Run the messages of a batch; says of each what became of it."""
        started = time.monotonic()
        started_ms = round(time.time() * 1000)
        endings: list[Ending] = [Word.ALONE] * len(items)
        ready: list[tuple[int, tuple[Any, ...]]] = []
        is_cancelled = self.is_cancelled
        replies = _Replies(self.backend, hostname=hostname, started_ms=started_ms)
        for index, item in enumerate(items):
            arguments = _arguments_of(item)
            if arguments is None:
                continue
            if is_cancelled(item.id):
                exc = Cancelled(not_begun(self.name, item.id))
                endings[index] = self._refuse(item, Reason.CANCELLED, exc, replies)
                continue
            passed = None if item.deadline_ms is None else late(self._job_of(item))
            if passed is not None:
                endings[index] = self._refuse(item, Reason.DEADLINE, passed, replies)
                continue
            try:
                ready.append((index, self.columns.row(*arguments)))
            except InvalidArguments as exc:
                endings[index] = self._refuse(item, Reason.ARGUMENTS, exc, replies)
        # As for a single job: programs close their idle connections then.
        about: dict[str, Any] = {
            "sender": self,
            "task": self,
            "task_id": None,
            "args": (),
            "kwargs": {},
        }
        signals.task_prerun.send(**about)
        for group in self.columns.groups([row for _, row in ready]):
            members = [ready[at] for at in group]
            rows, inside = [row for _, row in members], [items[index] for index, _ in members]
            for (index, _), ending in zip(
                members, self._run_group(rows, inside, replies), strict=True
            ):
                endings[index] = ending
        signals.task_postrun.send(**about, retval=None, state="SUCCESS")
        return Report(endings, time.monotonic() - started)

    def _run_group(
        self,
        rows: Sequence[tuple[Any, ...]],
        items: Sequence[Item],
        replies: _Replies,
    ) -> list[Ending]:
        deadlines = [item.deadline_s for item in items]
        try:
            results = self._call(rows, lambda: tuple(map(self._job_of, items)), deadlines)
        except (Exception, SystemExit) as exc:
            if isinstance(exc, SystemExit) and not is_own(exc):
                raise
            failed = self._judged(exc, count=len(items))
            return [self._end_failed(item, exc, failed, replies) for item in items]
        return [
            self._end(item, result, replies) for item, result in zip(items, results, strict=True)
        ]

    def _job_of(self, item: Item) -> CurrentJob:
        return job_of(self.name, item, is_cancelled=self.is_cancelled)

    def _call(
        self,
        rows: Sequence[tuple[Any, ...]],
        jobs: Callable[[], tuple[CurrentJob, ...]],
        deadlines: Sequence[float | None],
    ) -> list[Any]:
        """Call the task once; return a result, or an exception, for each row."""
        args, kwargs = self.columns.arguments(rows)
        token = enter_batch(jobs, deadlines)
        try:
            return _results(self.name, run_to_end(self.run(*args, **kwargs)), len(rows))
        finally:
            leave_batch(token)

    # -- how each of them ends ------------------------------------------------------------

    def _end(self, item: Item, result: Any, replies: _Replies) -> Ending:
        if isinstance(result, BaseException):
            failed = self._judged(result, count=1, id=item.id)
            return self._end_failed(item, result, failed, replies)
        return Word.DONE if item.call is None else replies.send(item, result)

    def _refuse(self, item: Item, reason: Reason, exc: Exception, replies: _Replies) -> Ending:
        failure, again = self.judge(reason, exc)
        logger.warning("job %s (%s) is given up: %s", self.name, item.id, failure.message)
        return self._end_failed(item, exc, Failed(failure, again), replies)

    def _judged(self, exc: BaseException, *, count: int, id: str = "") -> Failed:
        failure, again = self.judge(Reason.FAILED, exc)
        logger.warning(
            "%s of batch job %s failed, %s: %s: %s",
            id or f"{count} messages",
            self.name,
            "returned to RabbitMQ" if again else "given up",
            type(exc).__name__,
            failure.message,
            exc_info=exc if exc.__traceback__ is not None else None,
        )
        return Failed(failure, again)

    def _end_failed(
        self, item: Item, exc: BaseException, failed: Failed, replies: _Replies
    ) -> Ending:
        if item.call is not None and failed.failure.reason is Reason.CANCELLED:
            return replies.send_revoked(item, failed.failure)
        # A caller is there to decide: it gets the error now, and there is no second attempt.
        return failed if item.call is None else replies.send_error(item, exc, failed.failure)


class _Replies:
    """Answers the calls among a batch's messages."""

    def __init__(self, backend: Any, *, hostname: str, started_ms: int) -> None:
        self._backend = backend
        self._hostname = hostname
        self._started_ms = started_ms

    def send(self, item: Item, result: Any) -> Ending:
        try:
            self._store(item, result, "SUCCESS")
        except EncodeError as exc:
            return self.send_error(item, exc, Failure.of(Reason.FAILED, exc))
        # It goes over a connection of its own, which may be down.
        except Exception:
            logger.exception("call %s could not be answered; it goes back to its queue", item.id)
            return Word.RETURNED
        return Word.DONE

    def send_error(self, item: Item, exc: BaseException, failure: Failure) -> Ending:
        if not isinstance(exc, Exception):
            exc = RuntimeError(f"the task ended its process: {exc!r}")
        try:
            self._store(item, exc, "FAILURE", traceback=failure.traceback or None)
        except Exception:
            logger.exception("call %s could not be answered; it goes back to its queue", item.id)
            return Word.RETURNED
        return Word.ANSWERED

    def send_revoked(self, item: Item, failure: Failure) -> Ending:
        try:
            self._store(item, TaskRevokedError(failure.message), "REVOKED")
        except Exception:
            logger.exception("call %s could not be answered; it goes back to its queue", item.id)
            return Word.RETURNED
        return Word.REVOKED

    def _store(self, item: Item, result: Any, state: str, **more: Any) -> None:
        request = context_of(item, hostname=self._hostname, started_ms=self._started_ms)
        self._backend.store_result(item.id, result, state, request=request, **more)


def run_batch(name: str, items: Sequence[tuple[Any, ...]], hostname: str) -> Report:
    """Run a batch in a process, or a thread, of the pool.

    Args:
        name: of the job.
        items: its messages, each an `Item` as a plain tuple.
        hostname: of the worker.
    """
    task: BatchTask = current_app.tasks[name]
    try:
        return task.run_all(list(map(Item._make, items)), hostname=hostname)
    # Such as a signal's receiver: in a thread of the pool nobody would learn of it.
    except Exception as exc:
        logger.exception("a batch of %d messages of job %s failed", len(items), name)
        failed = Failed(Failure.of(Reason.FAILED, exc), again=True)
        return Report([failed] * len(items), 0.0)


def batch_options(
    name: str, function: Callable[..., Any], *, batch: int, wait: str, options: dict[str, Any]
) -> dict[str, Any]:
    """Return Celery's options for the task of a batch job.

    Args:
        name: of the job.
        function: its task.
        batch: how many messages go into a call at most.
        wait: for how long the first of them waits for others, such as ``20ms``.
        options: that were given besides.

    Raises:
        InvalidInput: the options do not go together, or the function takes no lists.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= MOST:
        raise InvalidInput(f"job {name!r}: batch must be from 1 to {MOST:,}, not {batch!r}")
    try:
        wait_s = parse_duration(wait).total_seconds()
    except ValueError as exc:
        raise InvalidInput(f"job {name!r}: wait: {exc}") from None
    if wait_s > MOST_WAIT_S:
        raise InvalidInput(f"job {name!r}: wait must be at most {MOST_WAIT_S:g} s, not {wait!r}")
    if options.get("bind"):
        raise InvalidInput(
            f"job {name!r}: a batch has no task of its own to bind; leave out bind, and use"
            " current_jobs() for the messages"
        )
    columns = Columns(name, function)
    return {**options, "columns": columns, "takes": columns.takes, "size": batch, "wait_s": wait_s}


def _arguments_of(item: Item) -> tuple[Any, Any] | None:
    """Return a message's arguments; None where it is more, or less, than a plain job.

    What cannot be read, and what has callbacks, chains or chords, goes the way of a single job,
    which knows the right ending of each.
    """
    try:
        payload = decode(item.body, item.content_type)
    except InvalidMessage:
        return None
    if not isinstance(payload, (list, tuple)) or len(payload) != 3:
        return None
    args, kwargs, embed = payload
    if not isinstance(args, (list, tuple)) or not isinstance(kwargs, dict):
        return None
    if embed is not None and (not isinstance(embed, dict) or any(embed.values())):
        return None
    return args, kwargs


def _results(job: str, returned: Any, count: int) -> list[Any]:
    if returned is None:
        return [None] * count
    if isinstance(returned, (str, bytes, Mapping)):
        raise WrongResults(
            f"batch job {job!r} returned a {type(returned).__name__}; it must return a list with a"
            " result for each message, or None"
        )
    try:
        results = list(returned)
    except TypeError as exc:
        raise WrongResults(
            f"batch job {job!r} returned {type(returned).__name__}, which has no entries; it must"
            " return a list with a result for each message, or None"
        ) from exc
    if len(results) != count:
        raise WrongResults(
            f"batch job {job!r} returned {len(results)} results for {count} messages; it must"
            " return one for each, in their order"
        )
    return results
