"""A run over a file of jobs: each line published, and accounted for in the order of the file."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from broker.confirmed import PUBLISH_TIMEOUT_S
from broker.contracts import Job
from broker.errors import (
    EXIT_DIFFERS,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_REFUSED,
    EXIT_UNKNOWN,
    EXIT_USAGE,
    InvalidInput,
    KeptInOutbox,
    OutcomeUnknown,
    Rejected,
    Unroutable,
)
from broker.message import job_message
from broker.receipt import Outcome, Receipt, Routed
from producers.batch import Line
from producers.batch_record import Record
from producers.publisher import Publisher

# What may become of a line; the first five also of a job.
ROUTED, UNROUTABLE, REJECTED, UNKNOWN = "routed", "unroutable", "rejected", "unknown"
ACCEPTED = "accepted"
WRONG, SKIPPED, BLANK = "wrong", "skipped", "blank"
# These need not be sent again.
SAFE = frozenset((ROUTED, ACCEPTED, BLANK))


class Stopped(Exception):
    """Reading is to end where it stands."""


@dataclass(slots=True)
class Stop:
    """Asks a run to read no further; may be set by a signal's handler.

    Attributes:
        requested: whether it was asked for.
        reading: whether the run waits for a line just now, and is to be woken by `Stopped`.
    """

    requested: bool = False
    reading: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one line that held something.

    Attributes:
        line: the line.
        job: what it asked for, or None where it could not be read.
        id: the message's, or None where there is none.
        outcome: ``routed``, ``unroutable``, ``rejected``, ``unknown``; ``accepted``: in the
            outbox; ``wrong``: never sent.
        reason: a sentence, except for ``routed``.
    """

    line: Line
    job: Job | None
    id: str | None
    outcome: str
    reason: str | None


@dataclass(slots=True)
class Tally:
    """The account of a run.

    Attributes:
        counts: lines by what became of them.
        lines: how many were read.
        resent: how many were sent more than once, so that RabbitMQ may have them twice.
        finished: whether the run came to the end of the file.
        interrupted: whether it was asked to stop.
    """

    counts: Counter[str] = field(default_factory=Counter)
    lines: int = 0
    resent: int = 0
    finished: bool = False
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """The command's exit code: the gravest of what happened."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        if self.counts[UNKNOWN]:
            return EXIT_UNKNOWN
        if self.counts[UNROUTABLE] or self.counts[REJECTED]:
            return EXIT_REFUSED
        if self.counts[WRONG]:
            sent = self.counts[ROUTED] or self.counts[ACCEPTED] or self.counts[SKIPPED]
            return EXIT_DIFFERS if sent and self.finished else EXIT_USAGE
        return EXIT_DIFFERS if self.counts[ACCEPTED] else EXIT_DONE


def publish_lines(
    publisher: Publisher,
    lines: Iterable[Line],
    *,
    record: Record | None = None,
    timeout_s: float = PUBLISH_TIMEOUT_S,
    strict: bool = False,
    stop: Stop | None = None,
    tell: Callable[[Result, Tally], None] = lambda _result, _tally: None,
) -> Tally:
    """Publish the jobs of some lines, in constant memory.

    Args:
        publisher: publishes them.
        lines: what was read; see `producers.batch.read_lines`.
        record: notes what was confirmed, and says what an earlier run got confirmed.
        timeout_s: seconds for each job until its outcome is known.
        strict: stop at the first line that is wrong: nothing behind it is sent.
        stop: asks for an end before the end.
        tell: is called with each result, in the order of the file.

    Raises:
        OutboxError: the outbox accepts no more.
    """
    run = _Run(publisher, lines, record, strict, stop or Stop(), tell)
    for receipt in publisher.publish_many(run.jobs(), timeout_s=timeout_s):
        run.ended(receipt)
    run.settle()
    run.tally.interrupted = run.stop.requested
    return run.tally


class _Run:
    def __init__(
        self,
        publisher: Publisher,
        lines: Iterable[Line],
        record: Record | None,
        strict: bool,
        stop: Stop,
        tell: Callable[[Result, Tally], None],
    ) -> None:
        self.tally = Tally()
        self.stop = stop
        self._publisher = publisher
        self._lines = iter(lines)
        self._record = record
        self._strict = strict
        self._tell = tell
        # Lines that were read and not accounted for; those without a job wait for their turn.
        self._pending: deque[Line] = deque()

    def jobs(self) -> Iterator[Job]:
        while (line := self._next()) is not None:
            self.tally.lines += 1
            if self._record is not None and self._record.skips(line):
                self.tally.counts[SKIPPED] += 1
                continue
            if line.job is not None and self._strict:
                line.problem = self._problem(line.job)
            if line.problem is not None:
                line.job = None
            self._pending.append(line)
            if line.job is not None:
                yield line.job
            elif len(self._pending) == 1:
                self.settle()
            if line.problem is not None and self._strict:
                return

    def _next(self) -> Line | None:
        if self.stop.requested:
            return None
        try:
            self.stop.reading = True
            line = next(self._lines, None)
            self.stop.reading = False
        except Stopped:
            return None
        finally:
            self.stop.reading = False
        if line is None:
            self.tally.finished = True
        return line

    def _problem(self, job: Job) -> str | None:
        """Say why a job cannot be sent, before it is handed over with others behind it."""
        try:
            contract = self._publisher.contract(job.name)
            contract.check(job.args, job.kwargs)
            job_message(contract, job, published_ms=0)
        except InvalidInput as exc:
            return str(exc)
        return None

    def ended(self, receipt: Receipt) -> None:
        self.settle()
        line = self._pending.popleft()
        outcome = receipt.outcome
        assert outcome is not None
        if receipt.redelivered:
            self.tally.resent += 1
        word = word_for(outcome)
        reason = None if isinstance(outcome, Routed) else str(outcome)
        self._account(Result(line, line.job, receipt.message_id or None, word, reason))
        self.settle()

    def settle(self) -> None:
        """Account for what needs no receipt, as far as nothing before it does."""
        while self._pending and self._pending[0].job is None:
            line = self._pending.popleft()
            if line.problem is None:
                self.tally.counts[BLANK] += 1
                if self._record is not None:
                    self._record.done(line, confirmed=True)
            else:
                self._account(Result(line, None, None, WRONG, line.problem))

    def _account(self, result: Result) -> None:
        self.tally.counts[result.outcome] += 1
        if self._record is not None:
            self._record.done(result.line, confirmed=result.outcome in SAFE)
        self._tell(result, self.tally)


def word_for(outcome: Outcome) -> str:
    """Return the word for an outcome."""
    match outcome:
        case Routed():
            return ROUTED
        case KeptInOutbox():
            return ACCEPTED
        case Unroutable():
            return UNROUTABLE
        case Rejected():
            return REJECTED
        case OutcomeUnknown():
            return UNKNOWN
    return WRONG
