"""The account after a run: where every message is. A fast loser is no winner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Where the messages of one run are.

    Attributes:
        published: how many were sent.
        done: how many jobs were run, each counted once; or calls answered rightly.
        waiting: messages that are left in the queue.
        dead: messages in the queue of the dead.
        twice: how many runs there were beyond the first of each job.
    """

    published: int
    done: int = 0
    waiting: int = 0
    dead: int = 0
    twice: int = 0

    def check(self, who: str, *, all_are: Literal["done", "waiting"] = "done") -> None:
        """End the benchmark where a message is lost, left, dead, or was run twice.

        Args:
            who: the contender.
            all_are: what has become of every message that was published: it was done, or,
                where nobody consumes, it waits in the queue.

        Raises:
            SystemExit: says in one sentence where the messages are.
        """
        kept = self.done if all_are == "done" else self.waiting
        elsewhere = self.waiting if all_are == "done" else self.done
        if kept != self.published or elsewhere or self.dead or self.twice:
            raise SystemExit(
                f"{who} does not count: of {self.published:,} messages {self.done:,} were done,"
                f" {self.waiting:,} wait, {self.dead:,} are dead, {self.missing:,} are missing,"
                f" and {self.twice:,} were run again"
            )

    @property
    def missing(self) -> int:
        """How many are nowhere."""
        return max(0, self.published - self.done - self.waiting - self.dead)


def tally(seen: Iterable[Hashable]) -> tuple[int, int]:
    """Return how many different jobs were seen, and how many times one was seen again."""
    counts = Counter(seen)
    return len(counts), sum(counts.values()) - len(counts)
