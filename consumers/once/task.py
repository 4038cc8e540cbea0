"""The task of a job that must not run again once it is finished."""

from __future__ import annotations

from typing import Any

from celery.utils.log import get_task_logger

from broker.errors import InvalidMessage, RabbitryError, WorkerError
from consumers.current import CurrentJob
from consumers.errors import StoreError
from consumers.job import JobTask
from consumers.once.store import Key, Record

logger = get_task_logger("rabbitry.job")


class ResultNotKept(RabbitryError):
    """A job is finished, and who waits for its result cannot have it any more."""


class OnceTask(JobTask):
    """A task that answers for a finished job from its record.

    Only what finished is recorded, so that what failed, a replayed dead letter too, runs again.
    """

    abstract = True
    once_s: float

    def _run(self, current: CurrentJob, args: Any, kwargs: Any) -> Any:
        key = Key(current.name, current.id)
        record = self.app.once.find(key)
        if record is not None:
            return self._answer(current, record)
        result = super()._run(current, args, kwargs)
        try:
            record = Record.of(result) if self._is_awaited(current) else Record.now()
            self.app.once.keep(key, record, ttl_s=self.once_s)
        # It has run: to fail now would make it run again for certain.
        except Exception:
            logger.exception(
                "job %s (%s) is finished and could not be recorded: delivered again it runs again",
                *key,
            )
        return result

    def _answer(self, current: CurrentJob, record: Record) -> Any:
        logger.info(
            "job %s (%s) is not run: it finished in an earlier delivery", current.name, current.id
        )
        if not self._is_awaited(current):
            return None
        try:
            return record.result()
        except LookupError:
            raise ResultNotKept(
                f"job {current.name!r} ({current.id}) finished in an earlier delivery, and its"
                " result was not kept: nobody waited for it then, or it cannot be sent"
            ) from None
        except InvalidMessage as exc:
            raise StoreError(
                f"the recorded result of job {current.name!r} ({current.id}) cannot be read: {exc}"
            ) from exc

    def _is_awaited(self, current: CurrentJob) -> bool:
        """Say whether anybody gets the result: a caller, who reads it later, or the next task."""
        request, kept = self.request, self.app.kept
        return bool(
            current.call
            or (request.reply_to or request.callbacks or request.chain or request.chord)
            or (kept is not None and kept.keeps(self.name))
        )

    def _may_mend(self, exc: BaseException) -> bool:
        if isinstance(exc, ResultNotKept):
            return False
        # Whatever the task retries on: the store has failed, not the task.
        return isinstance(exc, StoreError) or super()._may_mend(exc)


def check_store(app: Any) -> None:
    """Check that finished jobs can be recorded, where a task of the application says `once=`.

    Raises:
        WorkerError: names the job, and what is wrong with the store or that there is none.
    """
    names = sorted(name for name, task in app.tasks.items() if isinstance(task, OnceTask))
    if not names:
        return
    try:
        app.once.check()
    except StoreError as exc:
        raise WorkerError(f"job {names[0]!r} is to run once, but {exc}") from exc
