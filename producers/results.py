"""Results that outlive their caller, read where the topology says that they are kept."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from broker.cancellation import CallCancelled
from broker.errors import InvalidInput, InvalidMessage, InvalidReply, RemoteError
from broker.reply import Reply, reply_of
from broker.stored import KEY_PREFIX, NoResult, connect, load, translated
from broker.topology import Topology

# Between looks at a result that nobody has told of.
LOOK_S = 2.0
# The name of a job whose result does not say it.
UNKNOWN = "?"


class Results:
    """Reads the results of jobs that say `store: true`; safe to share between threads.

    Args:
        topology: its `results:` says where they are kept.

    Raises:
        InvalidInput: it does not say so, or the client of Redis is not installed.
    """

    def __init__(self, topology: Topology) -> None:
        url = topology.results_url()
        if topology.results is None or url is None:
            raise InvalidInput(
                "the topology does not say where results are kept; add"
                " `results: {backend: redis://HOST:6379/0}` to it"
            )
        self._url = url
        self._serializer, self._accept = topology.results.serializer, tuple(topology.accept)
        self._redis = connect(url)

    def get(self, id: str, *, timeout_s: float = 0.0) -> Any:
        """Return what a job returned; numpy arrays within are read-only.

        Args:
            id: of the job, such as that of `Publisher.publish`'s receipt.
            timeout_s: seconds to wait for its end.

        Raises:
            RemoteError: the task raised, or the job was never run.
            CallCancelled: somebody has cancelled it.
            NoResult: none is kept, nor came in time.
            InvalidReply: what is kept cannot be read.
            ResultsUnavailable: Redis does not answer.
        """
        if not id or timeout_s < 0:
            raise InvalidInput("a result has the id of its job, and is waited for 0 s at least")
        with translated(self._url):
            found = self._look(id)
            if found is None and timeout_s > 0:
                found = self._wait(id, timeout_s)
        if found is None:
            raise NoResult(
                f"job {id!r} has no result"
                + (f" after {timeout_s:g} s" if timeout_s else "")
                + ": it has not ended, its result is not kept (`store: true` in the topology), or"
                " its time is over",
                message_id=id,
            )
        job, reply = found
        if reply.error is None:
            return reply.result
        name, text, traceback = reply.error
        if reply.revoked:
            raise CallCancelled(job=job, message_id=id, reason=text)
        raise RemoteError(
            job=job,
            message_id=id,
            remote_class=name,
            remote_message=text,
            remote_traceback=traceback,
        )

    def _wait(self, id: str, timeout_s: float) -> tuple[str, Reply] | None:
        """Return a result as soon as it is written, or None."""
        deadline = time.monotonic() + timeout_s
        with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(KEY_PREFIX + id)
            while True:
                # It may have been written before Redis took note of us, or while it was away.
                found = self._look(id)
                left_s = deadline - time.monotonic()
                if found is not None or left_s <= 0:
                    return found
                channel.get_message(timeout=min(left_s, LOOK_S))

    def _look(self, id: str) -> tuple[str, Reply] | None:
        """Return the name of a job and its result, or None where there is none yet."""
        content = self._redis.get(KEY_PREFIX + id)
        if content is None:
            return None
        try:
            value = load(content, serializer=self._serializer, accept=self._accept)
            reply = reply_of(value, {})
        except InvalidMessage as exc:
            raise InvalidReply(
                f"the result of job {id!r} cannot be read: {exc}", job=UNKNOWN, message_id=id
            ) from exc
        # A plain Celery worker does not write the job's name, and may write that it has begun.
        return (str(value.get("name") or UNKNOWN), reply) if isinstance(reply, Reply) else None

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
