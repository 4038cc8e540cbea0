"""One call: a future that tells on the way how far it is."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from broker.errors import OutcomeUnknown
from broker.receipt import Receipt
from broker.reply import Accepted, News, Progress, Reply

logger = logging.getLogger("rabbitry.call")


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

    Coroutines can await it. Cancelling it gives the call up: a reply that comes later is dropped.

    Args:
        id, job, timeout_s: see below.
        give_up: is told when it is cancelled.
        on_news: is told of each `Accepted` and `Progress`, in the connection's thread.

    Attributes:
        id: of the job.
        job: its name.
        timeout_s: seconds within which it ends.
        timing: where the time went, once the reply has come.
        accepted: that a worker has begun with it, where news were asked for and it has.
        progress: the last that its task has told of how far it is, or None.
        receipt: of its message, once that was handed over.
    """

    def __init__(
        self,
        *,
        id: str,
        job: str,
        timeout_s: float,
        give_up: Callable[[Call], bool],
        on_news: Callable[[News], None] | None = None,
    ) -> None:
        super().__init__()
        self.id = id
        self.job = job
        self.timeout_s = timeout_s
        self.timing: Timing | None = None
        self.accepted: Accepted | None = None
        self.progress: Progress | None = None
        self.receipt: Receipt | None = None
        self.started = time.monotonic()
        # Of `time.monotonic`: when it is to end, and whether it has been given time after that.
        self.ends_at = self.started + timeout_s
        self.overdue = False
        self._give_up = give_up
        self._listeners: list[Callable[[News], None]] = [] if on_news is None else [on_news]
        self._pid = os.getpid()
        self._over = False

    def on_accepted(self, callback: Callable[[Accepted], None]) -> None:
        """Have a function called when a worker begins with it; at once where one has.

        The call must have been submitted with ``news=True``. It is called in the connection's
        thread, so it must be quick.
        """

        def listen(news: News) -> None:
            if isinstance(news, Accepted):
                callback(news)

        self._listen(listen, self.accepted)

    def on_progress(self, callback: Callable[[Progress], None]) -> None:
        """Have a function called whenever the task tells how far it is.

        The last that was told before is told again. Otherwise as for `on_accepted`.
        """

        def listen(news: News) -> None:
            if isinstance(news, Progress):
                callback(news)

        self._listen(listen, self.progress)

    def _listen(self, listener: Callable[[News], None], told: News | None) -> None:
        self._listeners.append(listener)
        if told is not None:
            listener(told)

    def cancel(self) -> bool:
        """Give it up; False where it has ended already."""
        if not super().cancel():
            return False
        if self._give_up(self):
            # Who waits for several at once learns it by this.
            self.set_running_or_notify_cancel()
        return True

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result; the call's own deadline ends the wait in any case.

        Args:
            timeout: at most this many seconds; None waits for the deadline.

        Raises:
            RabbitryError: how it ended, see `Caller.call`.
            TimeoutError: `timeout` passed first; the call is still under way.
            concurrent.futures.CancelledError: it was cancelled.
        """
        self._be_own()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait until it has ended, and return the error, or None; see `result`."""
        self._be_own()
        return super().exception(timeout)

    def __await__(self) -> Generator[Any, None, Any]:
        """Await the result; cancelling the task that waits cancels the call."""
        self._be_own()
        return asyncio.wrap_future(self).__await__()

    def _be_own(self) -> None:
        # What was under way at a fork is the parent's: nothing here would ever end it.
        if self._pid != os.getpid() and not self._over:
            raise self.unknown("the process was forked; its parent learns of it")

    # -- in the connection's thread -------------------------------------------------------

    def tell(self, news: News) -> None:
        """Pass on what the worker says on the way."""
        if isinstance(news, Accepted):
            self.accepted = news
        else:
            self.progress = news
        for listener in tuple(self._listeners):
            try:
                listener(news)
            # The user's own; the connection that many share must not suffer.
            except Exception:
                logger.exception("who listens to call %s of %r has failed", self.id, self.job)

    def end(self, *, result: Any = None, error: BaseException | None = None) -> None:
        """End it, unless it was cancelled; whoever calls this has taken it from those under way."""
        if not self.set_running_or_notify_cancel():
            return
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(result)
        self._over = True

    def unknown(self, reason: str) -> OutcomeUnknown:
        """Return the error that stands for not knowing what became of it."""
        receipt = self.receipt
        return OutcomeUnknown(
            message_id=self.id,
            exchange=receipt.exchange if receipt else "",
            routing_key=receipt.routing_key if receipt else "",
            sent=receipt is not None and receipt.sent,
            reason=reason,
        )

    def timed_by(self, reply: Reply) -> Timing:
        """Return where the time went, as a reply that has just come tells."""
        return Timing(
            waited_s=_seconds(reply.published_ms, reply.started_ms),
            ran_s=_seconds(reply.started_ms, reply.finished_ms),
            total_s=time.monotonic() - self.started,
            worker=reply.worker,
        )


def _seconds(start: int | None, end: int | None) -> float | None:
    return None if start is None or end is None else max(0, end - start) / 1000
