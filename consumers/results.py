"""Results that outlive their caller: a result backend that also writes to Redis.

Imported only where the topology says `results:`, since it takes the client of Redis.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from celery.backends.redis import RedisBackend
from celery.exceptions import BackendStoreError, Reject
from celery.states import READY_STATES
from celery.utils.log import get_logger
from kombu.exceptions import EncodeError

from broker.errors import InvalidMessage
from broker.receipt import Receipt
from broker.stored import ResultsUnavailable, dump, load, translated
from consumers.failure.failure import Failure
from consumers.kept import NotStored
from consumers.replies import ReplyBackend
from consumers.replies_news import News

logger = get_logger("rabbitry.results")


class StoringBackend(RedisBackend):  # type: ignore[misc]
    """Celery's Redis backend for the jobs that say `store: true`, and replies for who waits.

    Chords of Celery's keep the parts of their headers here as well.
    """

    def __init__(self, app: Any, **options: Any) -> None:
        kept = app.kept
        options |= {"url": kept.url, "expires": kept.expires_s, "serializer": kept.serializer}
        super().__init__(app=app, **options)
        self._kept = kept
        self._replies = ReplyBackend(app)

    # -- replies --------------------------------------------------------------------------

    def without_waiting(self) -> AbstractContextManager[list[Receipt]]:
        """Let replies of this thread be sent without waiting; gives their receipts."""
        return self._replies.without_waiting()

    def news_of(self, request: Any) -> News | None:
        """Return what tells the caller of a request how far it is; None where nobody wants it."""
        return self._replies.news_of(request)

    def store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Reply to who waits, and keep the result of a job that says so.

        Raises:
            kombu.exceptions.EncodeError: the result cannot travel; Celery then tells of that.
            NotStored: Redis does not take it.
        """
        if request is not None:
            self._replies.store_result(task_id, result, state, traceback, request, **kwargs)
        if state in READY_STATES and self._keeps(request):
            if isinstance(result, Reject) and isinstance(result.reason, Failure):
                traceback = traceback or result.reason.traceback or None
            with self._writing(task_id):
                self._store(task_id, result, state, traceback, request)
        return result

    # -- what is kept ---------------------------------------------------------------------

    def _keeps(self, request: Any) -> bool:
        # Without a request it is Celery's canvas that has an id to answer for.
        return request is None or self._kept.keeps(request.get("task"))

    def _store(
        self, task_id: str, result: Any, state: str, traceback: str | None, request: Any
    ) -> None:
        try:
            super().store_result(task_id, result, state, traceback, request)
        except InvalidMessage:
            # What is there under this id was written by another serializer: nobody can read it.
            self.delete(self.get_key_for_task(task_id))
            super().store_result(task_id, result, state, traceback, request)

    @contextmanager
    def _writing(self, task_id: str) -> Iterator[None]:
        try:
            with translated(self._kept.url):
                yield
        except (ResultsUnavailable, BackendStoreError) as exc:
            raise NotStored(f"the result of job {task_id} is not kept: {exc}") from exc

    def mark_as_failure(self, task_id: str, exc: Any, *args: Any, **kwargs: Any) -> None:
        """Tell that a job has failed; that nobody can be told is no other failure."""
        if isinstance(exc, NotStored):
            # The job is to be tried again, or buried, which says so.
            return
        try:
            super().mark_as_failure(task_id, exc, *args, **kwargs)
        except NotStored as not_stored:
            logger.error("job %s failed: %s", task_id, not_stored)

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Note that a part of a chord's header has ended.

        Raises:
            NotStored: Redis does not take it: the chord would wait for ever.
        """
        with self._writing(request.id):
            if not self._keeps(request):
                # Of a header with groups in it Celery reads the results rather than the parts.
                self._store(request.id, result, state, None, request)
            super().on_chord_part_return(request, state, result, **kwargs)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Listen for the result of what is sent; not within a task, which waits for none."""
        if self.app.current_worker_task is None:
            super().on_task_call(producer, task_id)

    def encode(self, data: Any) -> bytes:
        """Write a result message, a part of a chord or a group."""
        try:
            return dump(data, serializer=self._kept.serializer)
        except InvalidMessage as exc:
            raise EncodeError(f"the result cannot be kept: {exc}") from exc

    def decode(self, payload: Any) -> Any:
        """Read what was written."""
        if not isinstance(payload, bytes):
            return payload
        return load(payload, serializer=self._kept.serializer, accept=self._kept.accept)

    def prepare_exception(self, exc: Any, serializer: str | None = None) -> Any:
        """Return an error as it is kept: never pickled, and the job's own rather than ours."""
        if isinstance(exc, Reject) and isinstance(exc.reason, Failure):
            module, _, name = exc.reason.error.rpartition(".")
            message = [exc.reason.message]
            return {"exc_type": name or "Exception", "exc_message": message, "exc_module": module}
        return super().prepare_exception(exc, serializer="json")

    def _get_result_meta(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        meta: dict[str, Any] = super()._get_result_meta(*args, **kwargs)
        request = kwargs.get("request")
        if request is not None:
            found = {"name": request.get("task"), "worker": request.get("hostname")}
            meta |= {key: value for key, value in found.items() if value}
        return meta
