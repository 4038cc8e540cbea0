"""A caller's line to RabbitMQ: requests go out, replies come in, and each finds its call."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from broker import inherited
from broker.body import Serializer
from broker.cancellation import CallCancelled
from broker.confirmed import ConfirmedChannel
from broker.connection import address_of
from broker.contracts import Job
from broker.deliveries import Delivery
from broker.envelope import Envelope
from broker.errors import (
    CallTimeout,
    InvalidArguments,
    InvalidMessage,
    InvalidReply,
    MessageTooLarge,
    OutcomeUnknown,
    RabbitryError,
    RemoteError,
)
from broker.observer import Observer
from broker.receipt import Receipt, Routed
from broker.reply import News, Reply, read_reply
from broker.topology import Topology
from producers.calls.call import Call
from producers.calls.inbox import DirectReplies, Inbox, ReplyQueue
from producers.calls.under_way import CallsUnderWay
from producers.cancel import Canceller
from producers.envelopes import Envelopes
from producers.routes import Routes
from producers.traces import start_span

logger = logging.getLogger("rabbitry.call")


class Line:
    """One connection that requests go out on and replies come in on; see `Caller`.

    Attributes:
        unknown_replies: how many replies have come to no call under way, and were dropped.
    """

    def __init__(
        self,
        topology: Topology,
        url: str | None,
        *,
        one_shot: bool,
        serializer: Serializer,
        window: int,
        max_message_bytes: int,
        clock: Callable[[], float],
        metrics: Observer | None,
    ) -> None:
        self.unknown_replies = 0
        self._topology = topology
        self._one_shot = one_shot
        self._serializer: Serializer = serializer
        self._clock = clock
        self._address = address_of(topology, url)
        self._routes = Routes(topology)
        self._canceller = Canceller(topology, self._address, clock=clock)
        self._beginning = threading.Lock()
        self._pid = os.getpid()
        self._begin()
        self._channel = ConfirmedChannel(
            self._address,
            name="rabbitry-caller",
            window=window,
            on_channel=self._consume_replies,
            on_delivery=self._delivered,
            on_lost=self._lost,
            max_message_bytes=max_message_bytes,
            observer=metrics,
        )

    def _begin(self) -> None:
        """Make everything that a fork must not share."""
        self._inbox: Inbox = (
            DirectReplies()
            if self._one_shot
            else ReplyQueue(
                self._address.user,
                lambda when, work: self._channel.loop.call_at(when, work),
            )
        )
        self._calls = CallsUnderWay()
        self._envelopes = self._replied_to(self._inbox.name)

    def _replied_to(self, queue: str) -> Envelopes:
        return Envelopes(
            self._topology, routes=self._routes, serializer=self._serializer, reply_to=queue
        )

    def _be_here(self) -> None:
        """After a fork, begin anew: calls and queue are the parent's."""
        if self._pid == os.getpid():
            return
        with self._beginning:
            if self._pid != os.getpid():
                self._begin()
                # It begins anew when it is asked for, and consumes from the new queue then.
                _ = self._channel.loop
                self._pid = os.getpid()

    @property
    def reply_to(self) -> str:
        """The queue that the replies to new calls come into."""
        self._be_here()
        assert self._envelopes.reply_to is not None
        return self._envelopes.reply_to

    @property
    def blocked(self) -> str | None:
        """RabbitMQ's reason while an alarm blocks publishing, else None."""
        return self._channel.blocked_reason

    def connect(self, *, timeout_s: float) -> None:
        """Wait for the first connection; see `Caller.connect`."""
        self._be_here()
        self._channel.loop.wait_connected(timeout_s=timeout_s)

    def close(self) -> None:
        """Delete the queue and close the connection; calls under way end as `OutcomeUnknown`."""
        self._be_here()
        self._channel.loop.soon(self._inbox.close)
        self._channel.close(timeout_s=0.0)
        for call in self._calls.take_all():
            call.end(error=call.unknown("the caller was closed"))
            self._cancel(call)
        self._canceller.close()

    # -- making a call --------------------------------------------------------------------

    def submit(
        self,
        job: Job,
        *,
        timeout_s: float,
        news: bool = False,
        on_news: Callable[[News], None] | None = None,
    ) -> Call:
        """Make a call; see `Caller.submit`.

        Args:
            job: what to call.
            timeout_s: seconds until the reply must be here.
            news: whether the worker is to tell how far it is.
            on_news: is told of it, in the connection's thread.
        """
        self._be_here()
        within = inherited.parent()
        if within is not None:
            timeout_s = within.at_most(timeout_s, now_s=self._clock())
        job = _within(job, timeout_s)
        envelope = self._envelopes[job.name]
        span = start_span(envelope.contract, job)
        if span is None:
            return self._send(envelope, job, timeout_s, news=news, on_news=on_news)
        try:
            call = self._send(envelope, span.job, timeout_s, news=news, on_news=on_news)
        except RabbitryError as exc:
            span.failed(exc)
            raise
        assert call.receipt is not None
        span.end_with(call.receipt)
        return call

    def _send(
        self,
        envelope: Envelope,
        job: Job,
        timeout_s: float,
        *,
        news: bool,
        on_news: Callable[[News], None] | None,
    ) -> Call:
        envelope.contract.check(job.args, job.kwargs)
        id, content = envelope.frames(
            job,
            published_ms=round(self._clock() * 1000),
            news=news or on_news is not None,
            parent=inherited.parent(),
        )
        call = Call(
            id=id, job=job.name, timeout_s=timeout_s, give_up=self._given_up, on_news=on_news
        )
        channel = self._channel
        if self._calls.add(call):
            channel.loop.soon(lambda: channel.loop.call_at(call.ends_at, self._sweep))
        try:
            receipt = channel.send(
                content,
                message_id=id,
                exchange=envelope.exchange,
                routing_key=envelope.routing_key,
                timeout_s=timeout_s,
            )
        except MessageTooLarge as exc:
            self._calls.take(call)
            raise MessageTooLarge(
                size_bytes=exc.size_bytes, limit_bytes=exc.limit_bytes, job=job.name
            ) from None
        except BaseException:
            self._calls.take(call)
            raise
        call.receipt = receipt
        receipt.add_done_callback(partial(self._published, call))
        return call

    async def submit_later(self, job: Job, **options: Any) -> Call:
        """Do as `submit`, without keeping the event loop where the window is full."""
        self._be_here()
        if self._channel.has_room:
            return self.submit(job, **options)
        # What runs, and so what the call inherits, is told by a context variable.
        submit = partial(contextvars.copy_context().run, self.submit, job, **options)
        submitting = asyncio.get_running_loop().run_in_executor(None, submit)
        try:
            return await asyncio.shield(submitting)
        except asyncio.CancelledError:
            submitting.add_done_callback(_cancel_submitted)
            raise

    def _given_up(self, call: Call) -> bool:
        """Forget a call that was cancelled; says whether it was under way."""
        if not self._calls.take(call):
            return False
        self._cancel(call)
        return True

    def _cancel(self, call: Call) -> None:
        """Tell workers that nobody waits for a call any more, where one may have it."""
        receipt = call.receipt
        if receipt is not None and (receipt.sent or not receipt.done):
            self._canceller.give_up(call.id)

    # -- in the connection's thread -------------------------------------------------------

    def _consume_replies(self, channel: Any) -> None:
        before = self._inbox.name
        was_there = self._inbox.open(channel)
        if self._inbox.name != before:
            self._envelopes = self._replied_to(self._inbox.name)
        if not was_there:
            self._replies_lost("the queue for its reply was gone when RabbitMQ was there again")

    def _lost(self, error: RabbitryError) -> None:
        self._inbox.lost()
        if not self._inbox.outlives_connection:
            self._replies_lost(str(error))

    def _replies_lost(self, reason: str) -> None:
        # What was not confirmed yet, or not even handed over, is sent again and asks anew.
        for call in self._calls.take_all(lambda call: bool(call.receipt and call.receipt.done)):
            call.end(error=call.unknown(reason))

    def _delivered(self, delivery: Delivery) -> None:
        call = self._call_of(delivery)
        if call is None:
            # Of what is delivered again the first has been answered already, as a rule.
            if not delivery.redelivered:
                self.unknown_replies += 1
            logger.info("a reply to no call of ours was dropped: %r", delivery.correlation_id)
        else:
            self._answered(call, delivery)
        self._inbox.took(delivery)

    def _call_of(self, delivery: Delivery) -> Call | None:
        try:
            return self._calls.get((delivery.correlation_id or b"").decode())
        except UnicodeDecodeError:
            return None

    def _answered(self, call: Call, delivery: Delivery) -> None:
        try:
            reply = read_reply(
                delivery.body, content_type=delivery.content_type, headers=delivery.headers()
            )
        except InvalidMessage as exc:
            error = InvalidReply(
                f"the reply to {call.job!r} ({call.id}) cannot be read: {exc}",
                job=call.job,
                message_id=call.id,
            )
            error.__cause__ = exc
            if self._calls.take(call):
                call.end(error=error)
            return
        if isinstance(reply, Reply):
            self._end(call, reply)
        elif reply is not None:
            call.tell(reply)

    def _end(self, call: Call, reply: Reply) -> None:
        if not self._calls.take(call):
            return
        call.timing = call.timed_by(reply)
        if reply.error is None:
            call.end(result=reply.result)
            return
        name, text, traceback = reply.error
        if reply.revoked:
            call.end(error=CallCancelled(job=call.job, message_id=call.id, reason=text))
            return
        call.end(
            error=RemoteError(
                job=call.job,
                message_id=call.id,
                remote_class=name,
                remote_message=text,
                remote_traceback=traceback,
            )
        )

    def _published(self, call: Call, receipt: Receipt) -> None:
        outcome = receipt.outcome
        if isinstance(outcome, Routed) or outcome is None:
            return
        if isinstance(outcome, OutcomeUnknown) and outcome.sent:
            return  # the reply may still come; the call's own deadline decides
        if self._calls.take(call):
            call.end(error=outcome)

    def _sweep(self) -> None:
        """End what is past its deadline, and come back at the next one."""
        late, look_at = self._calls.take_late(time.monotonic())
        if look_at < float("inf"):
            self._channel.loop.call_at(look_at, self._sweep)
        for call in late:
            call.end(error=CallTimeout(job=call.job, message_id=call.id, timeout_s=call.timeout_s))
            if call.receipt is not None and call.receipt.sent:
                self._cancel(call)


def _within(job: Job, timeout_s: float) -> Job:
    """Return a job as it is called: with the timeout as its deadline."""
    if not isinstance(timeout_s, (int, float)) or not timeout_s > 0:
        raise InvalidArguments(
            f"a call of {job.name!r} needs a timeout of more than 0 seconds, not {timeout_s!r}",
            job=job.name,
        )
    if job.delay_s is not None or job.eta is not None:
        raise InvalidArguments(
            f"a call of {job.name!r} cannot be delayed: its caller waits; publish it instead",
            job=job.name,
        )
    deadline_s = timeout_s if job.deadline_s is None else min(job.deadline_s, timeout_s)
    if job.deadline_s == deadline_s and job.correlation_id is None:
        return job
    # The reply finds its call by the message's own id.
    return replace(job, deadline_s=deadline_s, correlation_id=None)


def _cancel_submitted(submitting: asyncio.Future[Call]) -> None:
    """Cancel a call that was made for a task which is gone."""
    if not submitting.cancelled() and submitting.exception() is None:
        submitting.result().cancel()
