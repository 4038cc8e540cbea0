"""Request and reply: calling a job like a function."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from broker.body import Serializer
from broker.confirmed import PUBLISH_TIMEOUT_S, WINDOW, ConfirmedChannel
from broker.connection import address_of
from broker.contracts import Contract, Job, contract_of
from broker.errors import (
    CallTimeout,
    InvalidArguments,
    InvalidInput,
    InvalidMessage,
    InvalidReply,
    OutcomeUnknown,
    RabbitryError,
    RemoteError,
)
from broker.message import job_message
from broker.receipt import Receipt, Routed
from broker.reply import Reply, read_reply
from broker.topology import Topology

logger = logging.getLogger("rabbitry.call")

# RabbitMQ's pseudo-queue: a reply goes straight to the channel that asked ("Direct Reply-to").
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"
CALL_TIMEOUT_S = 30.0
# Futures ahead of the one that `map` yields next; bounds its memory.
MAP_AHEAD = 1000


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of a call went, by the clocks of producer and worker.

    Attributes:
        waited_s: seconds from publishing to the start of the task; None where the worker does
            not say.
        ran_s: seconds that the task took; None where the worker does not say.
        total_s: seconds from submitting to the reply, by the producer's clock alone.
        worker: name of the worker that answered, or None.
    """

    waited_s: float | None
    ran_s: float | None
    total_s: float
    worker: str | None


class Call(Future[Any]):
    """The future of one call: resolves to the result, or raises what became of it.

    Attributes:
        id: of the job.
        job: its name.
        timing: where the time went, once the reply has come.
    """

    def __init__(self, *, id: str, job: str, timeout_s: float) -> None:
        super().__init__()
        self.id = id
        self.job = job
        self.timeout_s = timeout_s
        self.timing: Timing | None = None
        self.started = time.monotonic()
        self.receipt: Receipt | None = None


class Caller:
    """Calls the jobs of a topology; one connection, safe to share between threads.

    Replies come by direct reply-to: no queue is declared, and the caller needs neither read nor
    configure rights.

    Args:
        topology: says which jobs there are and where they go.
        url: where RabbitMQ is; by default RABBITRY_URL, the file's, the private node's.
        serializer: of the arguments, ``json`` or ``msgpack``.
        window: how many requests may wait for their confirms at a time.
        clock: seconds since 1970-01-01 UTC.
    """

    def __init__(
        self,
        topology: Topology,
        url: str | None = None,
        *,
        serializer: Serializer = "json",
        window: int = WINDOW,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.topology = topology
        self.unknown_replies = 0
        self._serializer = serializer
        self._clock = clock
        self._contracts: dict[str, Contract] = {}
        self._calls: dict[str, Call] = {}
        self._lock = threading.Lock()
        address = address_of(topology, url)
        self._channel = ConfirmedChannel(
            address,
            name="rabbitry-caller",
            window=window,
            on_channel=self._consume_replies,
            on_lost=self._replies_lost,
        )

    def connect(self, *, timeout_s: float = PUBLISH_TIMEOUT_S) -> None:
        """Wait for the first connection; not needed, but says early what is wrong.

        Raises:
            Unreachable, AccessRefused, VirtualHostMissing: the first attempt failed.
        """
        self._channel.loop.wait_connected(timeout_s=timeout_s)

    def call(
        self, job: str | Job, *args: Any, timeout_s: float = CALL_TIMEOUT_S, **kwargs: Any
    ) -> Any:
        """Call a job and wait for its result; options as for `submit`.

        Raises:
            RemoteError: the task raised.
            CallTimeout: no reply within `timeout_s` seconds.
            Unroutable, Rejected, OutcomeUnknown: the request did not arrive, or nobody knows.
            UnknownJob, InvalidArguments, InvalidMessage: nothing was sent.
        """
        call = self.submit(job, *args, timeout_s=timeout_s, **kwargs)
        try:
            return call.result()
        except BaseException:
            call.cancel()
            raise

    def submit(
        self,
        job: str | Job,
        *args: Any,
        id: str | None = None,
        priority: int | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
        **kwargs: Any,
    ) -> Call:
        """Call a job without waiting; returns a future that always ends by its deadline.

        Args:
            job: a job's name, or a `Job`, which brings its own arguments and options.
            args, kwargs: arguments of the task; numpy arrays anywhere within.
            id: unique; made up by default.
            priority: 0-31; the contract's by default.
            timeout_s: seconds until the reply must be here; also the message's deadline, after
                which no worker begins it.

        Raises:
            UnknownJob, InvalidArguments, InvalidMessage: nothing was sent.
        """
        if isinstance(job, str):
            job = Job(job, args, kwargs, id=id, priority=priority)
        elif args or kwargs:
            raise InvalidInput("a Job brings its own arguments; give either a Job or a name")
        if not timeout_s > 0:
            raise InvalidArguments(
                f"a call of {job.name!r} needs a timeout of more than 0 seconds, not {timeout_s!r}",
                job=job.name,
            )
        contract = self._contracts.get(job.name)
        if contract is None:
            contract = self._contracts[job.name] = contract_of(self.topology, job.name)
        contract.check(job.args, job.kwargs)
        deadline_s = timeout_s if job.deadline_s is None else min(job.deadline_s, timeout_s)
        message = job_message(
            contract,
            # The reply finds its call by the message's own id.
            replace(job, deadline_s=deadline_s, correlation_id=None),
            published_ms=round(self._clock() * 1000),
            reply_to=DIRECT_REPLY_TO,
            serializer=self._serializer,
        )
        call = Call(id=message.id, job=job.name, timeout_s=timeout_s)
        with self._lock:
            if message.id in self._calls:
                raise InvalidArguments(
                    f"a call with the id {message.id!r} is under way already", job=job.name
                )
            self._calls[message.id] = call
        deadline = call.started + timeout_s
        self._channel.loop.soon(
            lambda: self._channel.loop.call_at(deadline, lambda: self._timed_out(call))
        )
        receipt = self._channel.publish(
            message,
            exchange=contract.exchange,
            routing_key=contract.routing_key,
            timeout_s=timeout_s,
        )
        call.receipt = receipt
        receipt.add_done_callback(lambda receipt: self._published(call, receipt))
        return call

    def map(
        self,
        job: str,
        items: Iterable[Any],
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """Call a job once for each item, as its first argument; yields the results in order.

        Args:
            job: a job's name.
            items: the first arguments.
            timeout_s: seconds for each call.
            kwargs: keyword arguments that all calls share, and `submit`'s options.

        Raises:
            Whatever `call` raises, when the result of that item is due.
        """
        pending: list[Call] = []
        iterator = iter(items)
        try:
            for item in iterator:
                pending.append(self.submit(job, item, timeout_s=timeout_s, **kwargs))
                while pending and (pending[0].done() or len(pending) >= MAP_AHEAD):
                    yield pending.pop(0).result()
            while pending:
                yield pending.pop(0).result()
        finally:
            for call in pending:
                call.cancel()

    def close(self) -> None:
        """Close the connection; calls that are still under way end as `OutcomeUnknown`."""
        self._channel.close(timeout_s=0.0)
        self._fail_all("the caller was closed")

    def __enter__(self) -> Caller:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- in the connection's thread -------------------------------------------------------

    def _consume_replies(self, channel: Any) -> None:
        channel.basic_consume(DIRECT_REPLY_TO, no_ack=True, callback=self._on_reply)

    def _on_reply(self, message: Any) -> None:
        properties = message.properties
        call = self._take(properties.get("correlation_id"))
        if call is None:
            self.unknown_replies += 1
            logger.info("a reply to no call of ours was dropped: %s", properties)
            return
        try:
            reply = read_reply(
                message.body,
                content_type=properties.get("content_type", ""),
                headers=properties.get("application_headers") or {},
            )
        except InvalidMessage as exc:
            error = InvalidReply(
                f"the reply to {call.job!r} ({call.id}) cannot be read: {exc}",
                job=call.job,
                message_id=call.id,
            )
            error.__cause__ = exc
            _finish(call, error=error)
            return
        if not isinstance(reply, Reply):
            with self._lock:
                self._calls[call.id] = call
            return
        call.timing = _timing(call, reply)
        if reply.error is not None:
            name, text, traceback = reply.error
            _finish(
                call,
                error=RemoteError(
                    job=call.job,
                    message_id=call.id,
                    remote_class=name,
                    remote_message=text,
                    remote_traceback=traceback,
                ),
            )
        else:
            _finish(call, result=reply.result)

    def _published(self, call: Call, receipt: Receipt) -> None:
        outcome = receipt.outcome
        if isinstance(outcome, Routed) or outcome is None:
            return
        if isinstance(outcome, OutcomeUnknown) and outcome.sent:
            return  # the reply may still come; the call's own deadline decides
        if self._take(call.id) is not None:
            _finish(call, error=outcome)

    def _timed_out(self, call: Call) -> None:
        if call.receipt is not None and not call.receipt.sent:
            return  # its publish ends at the same time and knows why it was never sent
        if self._take(call.id) is not None:
            error = CallTimeout(job=call.job, message_id=call.id, timeout_s=call.timeout_s)
            _finish(call, error=error)

    def _replies_lost(self, error: RabbitryError) -> None:
        # A direct reply goes to the channel that asked, and that one is gone. Requests that were
        # not confirmed yet, or not even handed over, are sent on the next and ask anew.
        with self._lock:
            gone = [call for call in self._calls.values() if call.receipt and call.receipt.done]
            for call in gone:
                del self._calls[call.id]
        for call in gone:
            _finish(call, error=_unknown(call, str(error)))

    def _fail_all(self, reason: str) -> None:
        with self._lock:
            calls, self._calls = list(self._calls.values()), {}
        for call in calls:
            _finish(call, error=_unknown(call, reason))

    def _take(self, id: str | None) -> Call | None:
        with self._lock:
            return None if id is None else self._calls.pop(id, None)


def _finish(call: Call, *, result: Any = None, error: BaseException | None = None) -> None:
    if not call.set_running_or_notify_cancel():
        return  # cancelled by who submitted it
    if error is not None:
        call.set_exception(error)
    else:
        call.set_result(result)


def _unknown(call: Call, reason: str) -> OutcomeUnknown:
    receipt = call.receipt
    return OutcomeUnknown(
        message_id=call.id,
        exchange=receipt.exchange if receipt else "",
        routing_key=receipt.routing_key if receipt else "",
        sent=receipt is None or receipt.sent,
        reason=reason,
    )


def _timing(call: Call, reply: Reply) -> Timing:
    def seconds(start: int | None, end: int | None) -> float | None:
        return None if start is None or end is None else max(0, end - start) / 1000

    return Timing(
        waited_s=seconds(reply.published_ms, reply.started_ms),
        ran_s=seconds(reply.started_ms, reply.finished_ms),
        total_s=time.monotonic() - call.started,
        worker=reply.worker,
    )
