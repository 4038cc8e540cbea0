"""Request and reply: calling a job like a function."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

from broker.body import Serializer
from broker.confirmed import MAX_MESSAGE_BYTES, PUBLISH_TIMEOUT_S
from broker.contracts import Job
from broker.errors import InvalidInput
from broker.observer import Observer
from broker.topology import Topology
from broker.window import WINDOW
from producers.calls.call import Call, Timing
from producers.calls.line import Line
from producers.calls.mapping import as_completed, as_completed_later, in_order, in_order_later
from producers.calls.streams import stream, stream_later

__all__ = ["CALL_TIMEOUT_S", "Call", "Caller", "Job", "Timing"]

CALL_TIMEOUT_S = 30.0


class Caller:
    """Calls the jobs of a topology; one connection, safe to share between threads.

    Replies come into a queue of its own, so that calls survive a lost connection; its user needs
    the role ``caller``. With `one_shot` they come by direct reply-to, for which nothing is declared
    and no right needed; a lost connection then ends the calls that were under way.

    After a fork the child has a queue and a connection of its own from its first call on, and none
    of its parent's calls.

    Args:
        topology: says which jobs there are and where they go.
        url: where RabbitMQ is; by default RABBITRY_URL, the file's, the private node's.
        one_shot: whether it declares nothing; for few calls.
        serializer: of the arguments, ``json`` or ``msgpack``.
        window: how many requests may wait for their confirms at a time.
        max_message_bytes: the largest body that RabbitMQ takes, its ``max_message_size``.
        clock: seconds since 1970-01-01 UTC.
        metrics: counts requests; `producers.metrics.PublisherMetrics` does so for Prometheus.

    Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        topology: Topology,
        url: str | None = None,
        *,
        one_shot: bool = False,
        serializer: Serializer = "json",
        window: int = WINDOW,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        clock: Callable[[], float] = time.time,
        metrics: Observer | None = None,
    ) -> None:
        self.topology = topology
        self._line = Line(
            topology,
            url,
            one_shot=one_shot,
            serializer=serializer,
            window=window,
            max_message_bytes=max_message_bytes,
            clock=clock,
            metrics=metrics,
        )

    @property
    def reply_to(self) -> str:
        """The queue that replies come into."""
        return self._line.reply_to

    @property
    def unknown_replies(self) -> int:
        """How many replies have come to no call under way, and were dropped.

        Too late ones are among them, and those to calls that were given up.
        """
        return self._line.unknown_replies

    @property
    def blocked(self) -> str | None:
        """RabbitMQ's reason while an alarm blocks publishing, else None."""
        return self._line.blocked

    def connect(self, *, timeout_s: float = PUBLISH_TIMEOUT_S) -> None:
        """Wait for the first connection; not needed, but says early what is wrong.

        Raises:
            Unreachable, AccessRefused, VirtualHostMissing: the first attempt failed.
        """
        self._line.connect(timeout_s=timeout_s)

    def close(self) -> None:
        """Delete the queue and close the connection; calls under way end as `OutcomeUnknown`."""
        self._line.close()

    def __enter__(self) -> Caller:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- one call -------------------------------------------------------------------------

    def call(
        self, job: str | Job, *args: Any, timeout_s: float = CALL_TIMEOUT_S, **kwargs: Any
    ) -> Any:
        """Call a job and wait for its result; options as for `submit`.

        Raises:
            RemoteError: the task raised.
            CallTimeout: no reply within `timeout_s` seconds.
            CallCancelled: somebody else has cancelled it.
            InvalidReply: a reply came that cannot be read.
            Unroutable, Rejected, OutcomeUnknown: the request did not arrive, or nobody knows.
            UnknownJob, InvalidArguments, InvalidMessage, MessageTooLarge: nothing was sent.
        """
        call = self.submit(job, *args, timeout_s=timeout_s, **kwargs)
        try:
            return call.result()
        except BaseException:
            call.cancel()
            raise

    async def acall(
        self, job: str | Job, *args: Any, timeout_s: float = CALL_TIMEOUT_S, **kwargs: Any
    ) -> Any:
        """Do as `call`, for coroutines; cancelling the task that awaits cancels the call."""
        return await (await self.asubmit(job, *args, timeout_s=timeout_s, **kwargs))

    def submit(
        self,
        job: str | Job,
        *args: Any,
        id: str | None = None,
        priority: int | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
        news: bool = False,
        **kwargs: Any,
    ) -> Call:
        """Call a job without waiting; returns a future that always ends by its deadline.

        It waits where the window is full of requests that RabbitMQ has not confirmed. A keyword
        argument of the job that is named as one of these options is given with
        `Job(name, args, kwargs)`.

        Args:
            job: a job's name, or a `Job`, which brings its own arguments and options.
            args, kwargs: arguments of the task; numpy arrays anywhere within.
            id: unique; made up by default.
            priority: 0-31; the contract's by default.
            timeout_s: seconds until the reply must be here; also the message's deadline, after
                which no worker begins it.
            news: whether the worker is to tell that it has begun, and how far it is:
                `Call.on_accepted` and `Call.on_progress`.

        Raises:
            UnknownJob, InvalidArguments, InvalidMessage, MessageTooLarge: nothing was sent.
        """
        return self._line.submit(
            _job_of(job, args, kwargs, id=id, priority=priority, timeout_s=timeout_s),
            timeout_s=timeout_s,
            news=news,
        )

    async def asubmit(
        self,
        job: str | Job,
        *args: Any,
        id: str | None = None,
        priority: int | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
        news: bool = False,
        **kwargs: Any,
    ) -> Call:
        """Do as `submit`, without keeping the event loop where the window is full."""
        job = _job_of(job, args, kwargs, id=id, priority=priority, timeout_s=timeout_s)
        return await self._line.submit_later(job, timeout_s=timeout_s, news=news)

    # -- news, and many calls -------------------------------------------------------------

    def stream(
        self,
        job: str | Job,
        *args: Any,
        id: str | None = None,
        priority: int | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """Call a job, and yield what its worker tells on the way, and the result as the last.

        What it tells are `Accepted` and `Progress`. Of those that nobody has taken the last 1,000
        are kept. Closing the iterator before its end cancels the call. Arguments as for `submit`.

        Raises:
            Whatever `call` raises; what is wrong with the arguments at once.
        """
        job = _job_of(job, args, kwargs, id=id, priority=priority, timeout_s=timeout_s)
        return stream(lambda on_news: self._line.submit(job, timeout_s=timeout_s, on_news=on_news))

    def astream(
        self,
        job: str | Job,
        *args: Any,
        id: str | None = None,
        priority: int | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """Do as `stream`, for coroutines; the call is made when the first of it is awaited."""
        job = _job_of(job, args, kwargs, id=id, priority=priority, timeout_s=timeout_s)
        return stream_later(
            lambda on_news: self._line.submit_later(job, timeout_s=timeout_s, on_news=on_news)
        )

    def map(
        self,
        job: str,
        items: Iterable[Any],
        *,
        ordered: bool = True,
        timeout_s: float = CALL_TIMEOUT_S,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """Call a job once for each item, as its first argument, and yield the results.

        At most 1,000 calls are ahead of what has been yielded, so that any number of items can
        be gone through in constant memory. Leaving the iterator cancels those.

        Args:
            job: a job's name.
            items: the first arguments.
            ordered: whether results come in the order of the items; otherwise as they come in,
                each in a pair behind its item's number, counting from 0.
            timeout_s: seconds for each call.
            kwargs: keyword arguments that all calls share, and `submit`'s options.

        Raises:
            Whatever `call` raises, when the result of that item is due.
        """

        def submit(item: Any) -> Call:
            return self.submit(job, item, timeout_s=timeout_s, **kwargs)

        return in_order(submit, items) if ordered else as_completed(submit, items)

    def amap(
        self,
        job: str,
        items: Iterable[Any],
        *,
        ordered: bool = True,
        timeout_s: float = CALL_TIMEOUT_S,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """Do as `map`, for coroutines."""

        async def submit(item: Any) -> Call:
            return await self.asubmit(job, item, timeout_s=timeout_s, **kwargs)

        return in_order_later(submit, items) if ordered else as_completed_later(submit, items)


def _job_of(
    job: str | Job,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    id: str | None,
    priority: int | None,
    timeout_s: float,
) -> Job:
    if isinstance(job, str):
        return Job(job, args, kwargs, id=id, priority=priority, deadline_s=timeout_s)
    if args or kwargs:
        raise InvalidInput("a Job brings its own arguments; give either a Job or a name")
    return job
