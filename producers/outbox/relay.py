"""What stands between a publisher and its connection where there is an outbox.

One thread owns the file: it accepts jobs, several in one transaction where several come at once,
sends what waits in the order of each job's name, and takes out what RabbitMQ has confirmed. Of
several processes that share a file one sends at a time; the others watch what becomes of theirs.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from broker.confirmed import ConfirmedChannel
from broker.errors import (
    InvalidMessage,
    KeptInOutbox,
    OutboxError,
    RabbitryError,
)
from broker.receipt import Receipt, Routed
from broker.window import WINDOW
from producers.outbox.file import OutboxFile, Row
from producers.outbox.receipt import OutboxReceipt, refusal_of
from producers.outbox.sender import Sender
from producers.outbox.stored import Stored

logger = logging.getLogger("rabbitry.outbox")

# How often a process looks for what others have put into the file, or done with it.
LOOK_S = 0.05
# How long closing waits for the confirms of what is already on its way.
SETTLE_S = 5.0
WRITE_AGAIN_S = 1.0
AWAY_S = 2.0


class Outbox:
    """Jobs on disk until RabbitMQ has confirmed them; safe to share between threads.

    Args:
        path: of the file, made where there is none.
        make_channel: makes what the jobs are sent through; given ``on_channel`` and ``on_lost``
            of `ConfirmedChannel`.
        window: how many jobs may wait for their outcome in memory; on disk there may be any number.
        in_order: send a job only when the one before of its name is confirmed, so that also a
            refusal lets none overtake; slower.
        one_shot: leave a name alone after a refusal, rather than try it again later.
        create: whether to make the file where there is none.

    Attributes:
        channel: the channel; whoever closes the outbox closes it afterwards, without waiting.
        away: why RabbitMQ cannot be reached just now, or None.

    Raises:
        OutboxError: the file cannot be used; see `OutboxFile`.
    """

    def __init__(
        self,
        path: str | Path,
        make_channel: Callable[..., ConfirmedChannel],
        *,
        window: int = WINDOW,
        in_order: bool = False,
        one_shot: bool = False,
        create: bool = True,
    ) -> None:
        self.path = Path(path)
        self.changed = threading.Condition()
        self.away: str | None = "no connection yet"
        self._away_since = time.monotonic()
        self._file = OutboxFile(path, create=create)
        self.channel = make_channel(on_channel=self._connected, on_lost=self._lost)
        self._sender = Sender(
            self._file, self.channel, wake=self._wake, in_order=in_order, one_shot=one_shot
        )
        self._window = window
        self._accepting: list[tuple[OutboxReceipt, Stored, tuple[Any, ...]]] = []
        self._pending: dict[int, list[OutboxReceipt]] = {}
        self._deadlines: list[tuple[float, int, OutboxReceipt]] = []
        self._order = itertools.count()
        self._open = 0
        self._write_at = 0.0
        self._watch_at = 0.0
        self._woken = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="rabbitry-outbox", daemon=True)
        self._thread.start()

    # -- for other threads --------------------------------------------------------------

    def hand_over(self, stored: Stored, *, timeout_s: float) -> OutboxReceipt:
        """Hand a job to the outbox; it is accepted once the receipt says so.

        Args:
            stored: the job.
            timeout_s: seconds until the receipt ends; the job stays in the outbox in any case.

        Raises:
            InvalidMessage: AMQP cannot express a header or property.
        """
        values = stored.values()
        deadline = time.monotonic() + timeout_s
        receipt = OutboxReceipt(self, stored, deadline=deadline)
        with self.changed:
            # A RabbitMQ that is away does not hold up whoever only wants to be rid of a job.
            self.changed.wait_for(
                lambda: self._open < self._window or self._closing or self._make_room()
            )
            if self._closing:
                raise OutboxError("the publisher is closed; nothing was accepted", path=self.path)
            self._open += 1
            self._accepting.append((receipt, stored, values))
            heapq.heappush(self._deadlines, (deadline, next(self._order), receipt))
            self._woken = True
            self.changed.notify_all()
        return receipt

    def wait_accepted(self, receipt: Receipt) -> None:
        """Wait until a job is on the disk.

        Raises:
            InvalidMessage: another job in the outbox has the same id.
            OutboxError: the disk is full, or the file cannot be written; it was not accepted.
        """
        assert isinstance(receipt, OutboxReceipt)
        with self.changed:
            self.changed.wait_for(lambda: receipt.accepted or receipt.failure is not None)
        if receipt.failure is not None:
            raise receipt.failure

    def wait_unless_away(self, receipt: Receipt) -> None:
        """Wait until a receipt is done; an accepted one ends at once while RabbitMQ is away."""
        assert isinstance(receipt, OutboxReceipt)
        with self.changed:
            while not receipt.done:
                if receipt.accepted and self._is_away:
                    if receipt.position is not None:
                        self._pending.pop(receipt.position, None)
                    self._end(receipt, self._kept(receipt))
                else:
                    self.changed.wait(LOOK_S)

    def wait_for(self, receipt: Receipt, timeout_s: float | None) -> bool:
        """Wait until a receipt is done; False where the time-out came first."""
        with self.changed:
            return self.changed.wait_for(lambda: receipt.done, timeout_s)

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until every receipt is done; False where the time-out came first."""
        with self.changed:
            return self.changed.wait_for(lambda: self._open == 0, timeout_s)

    def close(self, *, timeout_s: float | None = None) -> None:
        """Wait for the receipts, and for what is on its way; what is left stays in the file."""
        self.flush(timeout_s)
        with self.changed:
            self._closing = True
            self.changed.notify_all()
        self._thread.join()

    # -- events of the connection, in its thread ------------------------------------------

    def _connected(self, _channel: Any) -> None:
        """RabbitMQ answers."""
        self.away = None
        self._away_since = float("inf")

    def _lost(self, error: RabbitryError) -> None:
        """RabbitMQ is away: who only wanted to be rid of jobs need not wait for it."""
        self.away = str(error)
        self._away_since = min(self._away_since, time.monotonic())
        with self.changed:
            self.changed.notify_all()

    @property
    def refused_names(self) -> set[str]:
        """Names that wait because RabbitMQ has refused one of their jobs."""
        return self._sender.refused_names

    @property
    def quiet(self) -> bool:
        """Whether nothing is on its way from here."""
        return self._sender.quiet

    @property
    def under_way(self) -> int:
        """How many were sent from here and are not confirmed."""
        return self._sender.under_way

    # -- the thread -----------------------------------------------------------------------

    def _wake(self) -> None:
        with self.changed:
            self._woken = True
            self.changed.notify_all()

    def _run(self) -> None:
        failure: OutboxError | None = None
        try:
            while self._turn():
                pass
            self._settle_last()
        except OutboxError as exc:
            failure = exc
            logger.error("%s; the outbox stops", exc)
        # What is left must end, whatever happened, or somebody would wait for ever.
        except Exception as exc:
            failure = OutboxError(f"the outbox {self.path} has failed: {exc}", path=self.path)
            logger.exception("the outbox's thread met an error of its own")
        with self.changed:
            self._closing = True
        self._end_all(failure)
        self._file.close()

    def _turn(self) -> bool:
        with self.changed:
            now = time.monotonic()
            wait_s = LOOK_S
            if self._deadlines:
                wait_s = min(wait_s, self._deadlines[0][0] - now)
            self.changed.wait_for(lambda: self._woken or self._closing, max(0.0, wait_s))
            self._woken = False
            accepting, self._accepting = self._accepting, []
            closing = self._closing
        self._write(accepting)
        if closing:
            return False
        if self._file.try_lock():
            self._sender.send()
        else:
            self._sender.forget()
        self._watch()
        self._end_late()
        return True

    def _write(self, accepting: list[tuple[OutboxReceipt, Stored, tuple[Any, ...]]]) -> None:
        if not accepting and time.monotonic() < self._write_at:
            return
        routed, refused = self._sender.take_settled()
        if not (accepting or routed or refused):
            return
        try:
            positions = self._file.write(
                [values for _, _, values in accepting],
                routed=routed,
                refused=[refusal for refusal, _ in refused],
            )
        except OutboxError as exc:
            # Nothing was written: whoever handed these over must know that they are not accepted.
            for receipt, _, _ in accepting:
                self._fail(receipt, exc)
            self._sender.give_back(routed, refused)
            self._write_at = time.monotonic() + WRITE_AGAIN_S
            logger.error("%s; trying again", exc)
            return
        for (receipt, stored, _), position in zip(accepting, positions, strict=True):
            if position is None:
                self._fail(
                    receipt,
                    InvalidMessage(
                        f"the outbox {self.path} holds another job with the id"
                        f" {receipt.message_id!r}; give each job its own"
                    ),
                )
                continue
            if self._file.locked:
                self._sender.remember(position, stored)
            with self.changed:
                receipt.position = position
                receipt.accepted = True
                if not receipt.done:
                    self._pending.setdefault(position, []).append(receipt)
                self.changed.notify_all()
        for position in routed:
            self._end_position(position, None)
        for refusal, error in refused:
            self._end_position(refusal.position, error)

    def _settle_last(self) -> None:
        """Wait for the confirms of what was sent, so that it is not sent again next time."""
        with self.changed:
            self.changed.wait_for(lambda: self._sender.quiet or self.away is not None, SETTLE_S)
        self._write_at = 0.0
        self._write([])

    def _watch(self) -> None:
        """Learn from the file what another process has made of our jobs."""
        now = time.monotonic()
        if now < self._watch_at:
            return
        self._watch_at = now + LOOK_S
        positions = [each for each in self._pending if each not in self._sender.in_flight]
        if not positions:
            return
        found = self._file.among(positions)
        for position in positions:
            row = found.get(position)
            if row is None:
                self._end_position(position, None)
            elif row.refusals or row.state == "dropped":
                self._end_position(position, row)

    # -- endings --------------------------------------------------------------------------

    def _end_position(self, position: int, why: RabbitryError | Row | None) -> None:
        with self.changed:
            receipts = self._pending.pop(position, ())
        for receipt in receipts:
            if why is None:
                outcome: Any = Routed(receipt.message_id, receipt.exchange, receipt.routing_key)
            elif isinstance(why, Row):
                outcome = refusal_of(receipt, why)
            else:
                outcome = why
            self._end(receipt, outcome)

    def _fail(self, receipt: OutboxReceipt, error: RabbitryError) -> None:
        receipt.failure = error
        self._end(receipt, error)

    def _end(self, receipt: OutboxReceipt, outcome: Any) -> None:
        with self.changed:
            if receipt.done:
                return
            receipt._outcome = outcome
            callbacks, receipt._callbacks = receipt._callbacks, None
            self._open -= 1
            self.changed.notify_all()
        for callback in callbacks or ():
            try:
                callback(receipt)
            except Exception:
                logger.exception("a callback of message %s failed", receipt.message_id)

    @property
    def _is_away(self) -> bool:
        """Whether RabbitMQ has been away for longer than a reconnection takes, or blocks us."""
        if self.channel.blocked_reason is not None:
            return True
        return self.away is not None and time.monotonic() - self._away_since > AWAY_S

    def _make_room(self) -> bool:
        """End the wait of the oldest accepted jobs while RabbitMQ is away; holds `changed`."""
        if not self._is_away:
            return False
        for position in list(itertools.islice(self._pending, self._window // 2)):
            for receipt in self._pending.pop(position):
                self._end(receipt, self._kept(receipt))
        return self._open < self._window

    def _end_late(self) -> None:
        now = time.monotonic()
        with self.changed:
            while self._deadlines:
                deadline, _, receipt = self._deadlines[0]
                if not receipt.done and (deadline > now or not receipt.accepted):
                    return
                heapq.heappop(self._deadlines)
                if not receipt.done and receipt.position is not None:
                    self._pending.pop(receipt.position, None)
                    self._end(receipt, self._kept(receipt))

    def _end_all(self, failure: OutboxError | None) -> None:
        with self.changed:
            accepting, self._accepting = self._accepting, []
        error = failure or OutboxError("the publisher is closed", path=self.path)
        for receipt, _, _ in accepting:
            self._fail(receipt, error)
        for receipts in list(self._pending.values()):
            for receipt in receipts:
                self._end(receipt, self._kept(receipt))
        self._pending.clear()
        with self.changed:
            self.changed.notify_all()

    def _kept(self, receipt: OutboxReceipt) -> KeptInOutbox:
        blocked = self.channel.blocked_reason
        return KeptInOutbox(
            message_id=receipt.message_id,
            exchange=receipt.exchange,
            routing_key=receipt.routing_key,
            sent=self._sender.was_sent(receipt.position),
            reason=(f"it blocks publishing: {blocked}" if blocked else self.away)
            or "no confirm by the deadline",
            outbox=self.path,
        )
