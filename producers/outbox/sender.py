"""Sends what waits in an outbox's file, in the order of each job's name."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial

from broker.confirmed import ConfirmedChannel
from broker.errors import InvalidInput, RabbitryError, Rejected, Unroutable
from broker.receipt import Receipt, Routed
from broker.window import WINDOW
from producers.outbox.file import OutboxFile, Refusal, Row
from producers.outbox.stored import Stored

# Half of what the channel takes, so that handing a message over never has to wait.
IN_FLIGHT = WINDOW // 2
IN_FLIGHT_BYTES = 64 * 2**20
REMEMBERED_BYTES = 64 * 2**10
BATCH = 200
# A message waits in the channel, through reconnections, for as long as this; then it is taken
# from the file anew.
SEND_TIMEOUT_S = 3600.0
# After so many refusals a job is set aside, so that it does not hold up its name for ever.
REFUSALS_BEFORE_ASIDE = 8
RETRY_FIRST_S = 1.0
RETRY_MOST_S = 60.0
# Between attempts where RabbitMQ refuses the user, or has no such virtual host.
HOPELESS_S = 1.0


class Sender:
    """What is on its way from one file; used by the outbox's thread, told by the connection's.

    Args:
        file: whose lock this process holds when `send` is called.
        channel: what to send through.
        wake: is called when an outcome is known.
        in_order: whether only one job of a name may be on its way at a time.
        one_shot: whether a name is left alone after a refusal.

    Attributes:
        in_flight: the job's name and the body's size in bytes by position of what is on its way.
        routed: how many jobs were confirmed.
    """

    def __init__(
        self,
        file: OutboxFile,
        channel: ConfirmedChannel,
        *,
        wake: Callable[[], None],
        in_order: bool = False,
        one_shot: bool = False,
    ) -> None:
        self.in_flight: dict[int, tuple[str, int]] = {}
        self.routed = 0
        self._file = file
        self._channel = channel
        self._wake = wake
        self._in_order = in_order
        self._one_shot = one_shot
        self._cursor = 0
        self._size_bytes = 0
        # Filled by the connection's thread, emptied by the outbox's.
        self._settled: deque[tuple[int, Receipt]] = deque()
        # Outcomes that could not be written into the file yet.
        self._routed: list[int] = []
        self._refused: list[tuple[Refusal, RabbitryError]] = []
        self._unwritten: set[int] = set()
        self._at_hand: dict[int, Stored] = {}
        self._refusals: dict[int, int] = {}
        self._receipts: dict[int, Receipt] = {}
        self._flying: Counter[str] = Counter()
        self._held_until: dict[str, float] = {}
        self._turns: set[str] = set()
        self._restart = False
        self._not_before = 0.0

    @property
    def refused_names(self) -> set[str]:
        """Names that wait because RabbitMQ refused one of their jobs."""
        return set(self._held_until)

    @property
    def quiet(self) -> bool:
        """Whether the outcome of everything that was sent is known."""
        return len(self._settled) >= len(self.in_flight)

    @property
    def under_way(self) -> int:
        """How many were written to a connection and are not confirmed."""
        receipts = list(self._receipts.values())
        return sum(receipt.sent and not receipt.done for receipt in receipts)

    def was_sent(self, position: int | None) -> bool:
        """Whether a job was written to a connection and has no outcome yet."""
        receipt = self._receipts.get(-1 if position is None else position)
        return receipt is not None and receipt.sent

    def remember(self, position: int, stored: Stored) -> None:
        """Keep a message that was just accepted, to send it without reading it again."""
        small = len(stored.message.body.content) <= REMEMBERED_BYTES
        if small and position > self._cursor and len(self._at_hand) < WINDOW:
            self._at_hand[position] = stored

    def forget(self) -> None:
        """Another process sends: what is at hand may be gone."""
        self._at_hand.clear()

    # -- sending ------------------------------------------------------------------------

    def send(self) -> None:
        """Send what may be sent now; returns without waiting for confirms."""
        now = time.monotonic()
        self._let_go(now)
        if self._restart:
            # In order only when all that was sent before has ended.
            if self.in_flight or now < self._not_before:
                return
            self._restart, self._cursor = False, 0
        while True:
            busy = {*self._held_until, *self._turns}
            rows = self._file.waiting(after=self._cursor, limit=BATCH, without=busy)
            if not rows:
                return
            for row in rows:
                if len(self.in_flight) >= IN_FLIGHT or self._size_bytes >= IN_FLIGHT_BYTES:
                    return
                self._look_at(row)
                self._cursor = row.position

    def _look_at(self, row: Row) -> None:
        if (
            row.position in self.in_flight
            or row.position in self._unwritten
            or row.name in self._turns
        ):
            return
        # After a refusal nothing of the name is sent behind the job before its outcome is known.
        alone = self._in_order or row.refusals > 0
        if alone:
            self._turns.add(row.name)
        if not (alone and self._flying[row.name]):
            self._send_one(row)

    def _send_one(self, row: Row) -> None:
        try:
            stored = self._at_hand.pop(row.position, None) or self._file.content(row.position)
            if stored is None:
                return
            receipt = self._channel.publish(
                stored.message,
                exchange=stored.exchange,
                routing_key=stored.routing_key,
                timeout_s=SEND_TIMEOUT_S,
            )
        except InvalidInput as exc:
            # No other attempt would end otherwise.
            self._unwritten.add(row.position)
            self._refused.append((Refusal(row.position, "rejected", str(exc), aside=True), exc))
            self._wake()
            return
        size_bytes = len(stored.message.body.content)
        self.in_flight[row.position] = (row.name, size_bytes)
        self._size_bytes += size_bytes
        self._flying[row.name] += 1
        self._refusals[row.position] = row.refusals
        self._receipts[row.position] = receipt
        receipt.add_done_callback(partial(self._done, row.position))

    def _done(self, position: int, receipt: Receipt) -> None:
        # In the connection's thread: only noted here.
        self._settled.append((position, receipt))
        self._wake()

    def _let_go(self, now: float) -> None:
        """Let names go on whose turn has come; they are looked for from the beginning."""
        free = [
            name
            for name, until in self._held_until.items()
            if until <= now and not self._flying[name]
        ]
        for name in free:
            del self._held_until[name]
        ready = [name for name in self._turns if not self._flying[name]]
        self._turns.difference_update(ready)
        if free or ready:
            self._cursor = 0

    # -- outcomes -----------------------------------------------------------------------

    def take_settled(self) -> tuple[list[int], list[tuple[Refusal, RabbitryError]]]:
        """Return what has ended since: routed positions, and refusals with their errors."""
        routed, self._routed = self._routed, []
        refused, self._refused = self._refused, []
        self._unwritten.clear()
        now = time.monotonic()
        while self._settled:
            position, receipt = self._settled.popleft()
            name, size_bytes = self.in_flight.pop(position)
            self._size_bytes -= size_bytes
            self._flying[name] -= 1
            before = self._refusals.pop(position)
            del self._receipts[position]
            outcome = receipt.outcome
            if isinstance(outcome, Routed):
                routed.append(position)
                self.routed += 1
            elif isinstance(outcome, (Unroutable, Rejected)):
                refusal = _refusal(position, outcome, refusals=before + 1)
                refused.append((refusal, outcome))
                if not refusal.aside:
                    pause_s = min(RETRY_MOST_S, RETRY_FIRST_S * 2**before)
                    self._held_until[name] = float("inf") if self._one_shot else now + pause_s
            else:
                self._restart = True
                self._not_before = now + HOPELESS_S
        return routed, refused

    def give_back(self, routed: list[int], refused: list[tuple[Refusal, RabbitryError]]) -> None:
        """Keep what could not be written into the file, for the next attempt."""
        self._routed, self._refused = routed, refused
        self._unwritten = {*routed, *(refusal.position for refusal, _ in refused)}


def _refusal(position: int, error: Unroutable | Rejected, *, refusals: int) -> Refusal:
    if isinstance(error, Unroutable):
        outcome, reason = "unroutable", f"{error.reply_code} {error.reply_text}"
    else:
        outcome, reason = "rejected", error.reason
    return Refusal(position, outcome, reason, aside=refusals >= REFUSALS_BEFORE_ASIDE)
