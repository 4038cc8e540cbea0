"""A dead letter, which ones are meant, and how they look in groups; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from broker import case_file
from broker.case_file import CaseFile
from consumers.queues.browse import Delivery

# What came into a dead-letter queue without having died.
NO_CASE = CaseFile("unknown")


@dataclass(frozen=True, slots=True)
class Letter:
    """A message in a dead-letter queue.

    Attributes:
        queue: that it lies in.
        delivery: the message.
        case: what went wrong; `NO_CASE` where nobody wrote it down.
    """

    queue: str
    delivery: Delivery
    case: CaseFile

    @classmethod
    def of(cls, queue: str, delivery: Delivery) -> Letter:
        """Read a message as a dead letter."""
        found = case_file.of(delivery.headers, delivery.properties)
        return cls(queue, delivery, found or NO_CASE)

    def without_body(self) -> Letter:
        """Return it without its body: many are kept while they are counted."""
        return replace(self, delivery=replace(self.delivery, content=b""))

    @property
    def id(self) -> str:
        """The message's id, or ""."""
        return self.delivery.id

    @property
    def job(self) -> str:
        """The name of the job, or "" where the message does not say."""
        name = self.delivery.headers.get("task")
        return name if isinstance(name, str) else ""

    @property
    def origin(self) -> tuple[str, str] | None:
        """The exchange and routing key that it was published to, or None where nobody knows."""
        if self.case.exchange is None or self.case.routing_key is None:
            return None
        return self.case.exchange, self.case.routing_key


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters are meant: those to which all that is given applies.

    Attributes:
        ids: of messages.
        jobs: names.
        errors: classes of exceptions, with or without their module.
        reasons: as `broker.case_file.Reason` has them.
        before_ms, since_ms: given up before, or not before, this time; a letter whose time nobody
            knows is not meant where either is given.
    """

    ids: frozenset[str] = frozenset()
    jobs: frozenset[str] = frozenset()
    errors: frozenset[str] = frozenset()
    reasons: frozenset[str] = frozenset()
    before_ms: int | None = None
    since_ms: int | None = None

    def takes(self, letter: Letter) -> bool:
        """Say whether a letter is meant."""
        case = letter.case
        if self.ids and letter.id not in self.ids:
            return False
        if self.jobs and letter.job not in self.jobs:
            return False
        if self.errors and not self.errors & {case.error, case.error.rpartition(".")[2]}:
            return False
        if self.reasons and _word(case.reason) not in map(_word, self.reasons):
            return False
        if self.before_ms is None and self.since_ms is None:
            return True
        if case.last_ms is None:
            return False
        if self.before_ms is not None and case.last_ms >= self.before_ms:
            return False
        return self.since_ms is None or case.last_ms >= self.since_ms


@dataclass(frozen=True, slots=True)
class Group:
    """Dead letters of one job that failed alike.

    Attributes:
        queue, job, error, reason: what they have in common.
        count: of them.
        oldest_ms, newest_ms: when the first and the last of them was given up, or None.
        message: of the newest.
    """

    queue: str
    job: str
    error: str
    reason: str
    count: int
    oldest_ms: int | None
    newest_ms: int | None
    message: str

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "queue": self.queue,
            "job": self.job,
            "error": self.error,
            "reason": self.reason,
            "count": self.count,
            "oldest_ms": self.oldest_ms,
            "newest_ms": self.newest_ms,
            "message": self.message,
        }


def grouped(letters: Iterable[Letter]) -> list[Group]:
    """Group letters by queue, job, error and reason, the largest group first."""
    found: dict[tuple[str, str, str, str], Group] = {}
    for letter in letters:
        case = letter.case
        key = (letter.queue, letter.job, case.error, case.reason)
        group = found.get(key)
        at = case.last_ms
        if group is None:
            found[key] = Group(*key, 1, at, at, case.message)
            continue
        newer = at is not None and (group.newest_ms is None or at >= group.newest_ms)
        found[key] = replace(
            group,
            count=group.count + 1,
            oldest_ms=_least(group.oldest_ms, at),
            newest_ms=at if newer else group.newest_ms,
            message=case.message if newer else group.message,
        )
    return sorted(found.values(), key=lambda group: -group.count)


def _word(reason: str) -> str:
    # RabbitMQ writes delivery_limit, we write time-limit: people need not know which is whose.
    return reason.replace("_", "-")


def _least(one: int | None, other: int | None) -> int | None:
    return min((each for each in (one, other) if each is not None), default=None)
