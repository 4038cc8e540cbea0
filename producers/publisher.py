"""Jobs over the confirmed channel: each publish is accounted for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from broker import inherited
from broker.body import Serializer
from broker.confirmed import MAX_MESSAGE_BYTES, PUBLISH_TIMEOUT_S, ConfirmedChannel
from broker.connection import address_of
from broker.contracts import Contract, Job
from broker.delays import Delays
from broker.envelope import Envelope
from broker.errors import InvalidInput, MessageTooLarge, OutboxError, RabbitryError
from broker.inherited import with_deadline
from broker.message import Message, job_message
from broker.observer import Observer
from broker.receipt import Receipt
from broker.topology import Topology
from broker.window import WINDOW
from producers.delays import delayed_message, wait_of
from producers.envelopes import Envelopes
from producers.outbox.relay import Outbox
from producers.outbox.stored import Stored
from producers.refusals import Refusals
from producers.routes import Routes
from producers.traces import start_span


class Publisher:
    """Publishes the jobs of a topology; one connection, safe to share between threads.

    Args:
        topology: says which jobs there are and where they go.
        url: where RabbitMQ is; by default RABBITRY_URL, the file's, the private node's.
        serializer: of the arguments, ``json`` or ``msgpack``.
        window: how many messages may wait for their confirms at a time.
        max_message_bytes: the largest body that RabbitMQ takes, its ``max_message_size``.
        clock: seconds since 1970-01-01 UTC.
        outbox: a file that holds each job until RabbitMQ has confirmed it, so that RabbitMQ may be
            away and the program may die; a receipt's ``accepted`` says that a job is in it.
        metrics: counts; `producers.metrics.PublisherMetrics` does so for Prometheus.

    Raises:
        OutboxError: the outbox cannot be used.

    Use it as a context manager, or call `close`: it waits for what is under way.
    """

    def __init__(
        self,
        topology: Topology,
        url: str | None = None,
        *,
        serializer: Serializer = "json",
        window: int = WINDOW,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        clock: Callable[[], float] = time.time,
        outbox: str | Path | None = None,
        metrics: Observer | None = None,
    ) -> None:
        self.topology = topology
        self._serializer = serializer
        self._window = window
        self._clock = clock
        self._delays = Delays(topology)
        self._routes = Routes(topology)
        self._envelopes = Envelopes(topology, routes=self._routes, serializer=serializer)
        address = address_of(topology, url)
        make_channel = partial(
            ConfirmedChannel,
            address,
            window=window,
            max_message_bytes=max_message_bytes,
            why_rejected=Refusals(self._routes).why,
            observer=metrics,
        )
        self._outbox: Outbox | None = None
        if outbox is None:
            self._channel = make_channel()
        else:
            self._outbox = Outbox(outbox, make_channel, window=window)
            self._channel = self._outbox.channel

    def connect(self, *, timeout_s: float = PUBLISH_TIMEOUT_S) -> None:
        """Wait for the first connection; not needed, but says early what is wrong.

        Raises:
            Unreachable, AccessRefused, VirtualHostMissing: the first attempt failed.
        """
        self._channel.loop.wait_connected(timeout_s=timeout_s)

    def publish(
        self,
        job: str | Job,
        *args: Any,
        id: str | None = None,
        priority: int | None = None,
        deadline_s: float | None = None,
        delay_s: float | None = None,
        eta: datetime | None = None,
        correlation_id: str | None = None,
        headers: Mapping[str, Any] | None = None,
        compression: str | None = None,
        timeout_s: float = PUBLISH_TIMEOUT_S,
        **kwargs: Any,
    ) -> Receipt:
        """Publish one job; returns at once, the receipt says what became of it.

        A keyword argument of the job that bears the name of one of these options is given with
        `Job(name, args, kwargs)`.

        Args:
            job: a job's name, or a `Job`, which brings its own arguments and options.
            args, kwargs: arguments of the task; numpy arrays anywhere within.
            id: unique; made up by default.
            priority: 0-31; the contract's by default.
            deadline_s: seconds from now after which nobody wants it; the contract's by default.
            delay_s: seconds from now before which it does not reach its queue.
            eta: the time instead, with a time zone.
            correlation_id: the id by default.
            headers: the producer's own.
            compression: of the body, by kombu's names such as ``gzip``; none by default.
            timeout_s: seconds until the outcome is known, connecting included; with an outbox
                the wait ends then, as `KeptInOutbox`, and the job stays in it.

        Raises:
            UnknownJob, InvalidArguments, InvalidMessage, MessageTooLarge: nothing was sent.
            InvalidDelay: the topology has no delays, or none so long; nothing was sent.
            OutboxError: the outbox cannot accept it; nothing was sent.
        """
        if isinstance(job, str):
            job = Job(
                job,
                args,
                kwargs,
                id=id,
                priority=priority,
                deadline_s=deadline_s,
                delay_s=delay_s,
                eta=eta,
                correlation_id=correlation_id,
                headers=headers,
                compression=compression,
            )
        elif args or kwargs:
            raise InvalidInput("a Job brings its own arguments; give either a Job or a name")
        receipt = self._hand_over(job, timeout_s=timeout_s)
        if self._outbox is not None:
            self._outbox.wait_accepted(receipt)
        return receipt

    def publish_message(
        self,
        message: Message,
        *,
        exchange: str,
        routing_key: str,
        timeout_s: float = PUBLISH_TIMEOUT_S,
    ) -> Receipt:
        """Publish a message that was made before, as it is; past the outbox, where there is one.

        Args:
            message: what to publish.
            exchange, routing_key: where to.
            timeout_s: seconds until the outcome is known, connecting included.

        Raises:
            InvalidMessage, MessageTooLarge: nothing was sent.
        """
        return self._channel.publish(
            message, exchange=exchange, routing_key=routing_key, timeout_s=timeout_s
        )

    def _hand_over(self, job: Job, *, timeout_s: float, stream: bool = False) -> Receipt:
        envelope = self._envelopes[job.name]
        span = start_span(envelope.contract, job)
        if span is None:
            return self._send(envelope, job, timeout_s=timeout_s, stream=stream)
        try:
            receipt = self._send(envelope, span.job, timeout_s=timeout_s, stream=stream)
        except RabbitryError as exc:
            span.failed(exc)
            raise
        span.end_with(receipt)
        return receipt

    def _send(self, envelope: Envelope, job: Job, *, timeout_s: float, stream: bool) -> Receipt:
        contract = envelope.contract
        contract.check(job.args, job.kwargs)
        if job.delay_s is not None or job.eta is not None:
            now_s = self._clock()
            wait = wait_of(job, now_s=now_s)
            if wait > 0:
                return self._delay(contract, job, wait=wait, now_s=now_s, timeout_s=timeout_s)
        now_s, within = self._clock(), inherited.parent()
        published_ms = round(now_s * 1000)
        if within is not None:
            job = with_deadline(job, within, contract.deadline_s, now_s=now_s)
        if self._outbox is not None:
            message = job_message(
                contract,
                job,
                published_ms=published_ms,
                serializer=self._serializer,
                parent_id=None if within is None else within.id,
                root_id=None if within is None else within.root_id,
            )
            size_bytes, limit_bytes = len(message.body.content), self._channel.max_message_bytes
            if size_bytes > limit_bytes:
                raise _too_large(job, size_bytes, limit_bytes)
            stored = Stored(contract.name, contract.exchange, contract.routing_key, message)
            return self._outbox.hand_over(stored, timeout_s=timeout_s)
        message_id, content = envelope.frames(job, published_ms=published_ms, parent=within)
        try:
            return self._channel.send(
                content,
                message_id=message_id,
                exchange=envelope.exchange,
                routing_key=envelope.routing_key,
                timeout_s=timeout_s,
                stream=stream,
            )
        except MessageTooLarge as exc:
            raise _too_large(job, exc.size_bytes, exc.limit_bytes) from None

    def _delay(
        self, contract: Contract, job: Job, *, wait: float, now_s: float, timeout_s: float
    ) -> Receipt:
        message, exchange = delayed_message(
            self._delays,
            contract,
            job,
            wait=wait,
            now_s=now_s,
            serializer=self._serializer,
            parent=inherited.parent(),
        )
        if self._outbox is not None:
            stored = Stored(contract.name, exchange, contract.routing_key, message)
            return self._outbox.hand_over(stored, timeout_s=timeout_s)
        return self.publish_message(
            message, exchange=exchange, routing_key=contract.routing_key, timeout_s=timeout_s
        )

    def publish_many(
        self,
        jobs: Iterable[Job | tuple[Any, ...]],
        *,
        timeout_s: float = PUBLISH_TIMEOUT_S,
    ) -> Iterator[Receipt]:
        """Publish any number of jobs in constant memory; yields their receipts in order, done.

        A receipt is yielded when the next job has been taken, or when there is no next one.

        Args:
            jobs: `Job`s, or tuples of a name, arguments and keyword arguments.
            timeout_s: seconds for each job until its outcome is known; with an outbox the wait
                ends as soon as RabbitMQ is known to be away.

        A job that cannot be sent (UnknownJob, InvalidArguments, InvalidDelay, InvalidMessage,
        MessageTooLarge) has that error as its receipt's outcome; the others go on.

        Raises:
            OutboxError: the outbox accepts no more; what it has accepted will be sent.
        """
        pending: deque[Receipt] = deque()
        # One slow confirm must not make receipts pile up behind it.
        most = 2 * self._window
        for job in jobs:
            if not isinstance(job, Job):
                job = Job(*job)
            try:
                receipt = self._hand_over(job, timeout_s=timeout_s, stream=True)
            except InvalidInput as exc:
                receipt = Receipt(
                    self._channel, job.id or "", None, exchange="", routing_key="", deadline=0.0
                )
                receipt._outcome = exc
            pending.append(receipt)
            while pending and (pending[0].done or len(pending) >= most):
                yield self._ended(pending.popleft())
        while pending:
            yield self._ended(pending.popleft())

    def _ended(self, receipt: Receipt) -> Receipt:
        if not receipt.done:
            if self._outbox is not None:
                self._outbox.wait_unless_away(receipt)
            else:
                self._channel.wait_for(receipt, None)
        if isinstance(receipt.outcome, OutboxError):
            raise receipt.outcome
        return receipt

    def contract(self, name: str) -> Contract:
        """Return the contract of a job. Raises UnknownJob."""
        return self._envelopes[name].contract

    @property
    def blocked(self) -> str | None:
        """RabbitMQ's reason while an alarm blocks publishing, else None."""
        return self._channel.blocked_reason

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until every receipt is done; False where the time-out came first."""
        return (self._outbox or self._channel).flush(timeout_s)

    def close(self, *, timeout_s: float | None = None) -> None:
        """Wait for what is under way, then close the connection; an outbox keeps what is left."""
        if self._outbox is not None:
            self._outbox.close(timeout_s=timeout_s)
            timeout_s = 0.0
        self._channel.close(timeout_s=timeout_s)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # An interrupted program does not wait for confirms that may never come.
        interrupted = exc_type is not None and not issubclass(exc_type, Exception)
        self.close(timeout_s=0.0 if interrupted else None)


def _too_large(job: Job, size_bytes: int, limit_bytes: int) -> MessageTooLarge:
    return MessageTooLarge(size_bytes=size_bytes, limit_bytes=limit_bytes, job=job.name)
