"""The ledger of a producing process: what each receipt said, and what the queues hold."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.body import decode
from broker.connection import Address, connect

_COLUMNS = (
    *("fault", "jobs", "routed", "unroutable", "rejected", "unknown", "unsent"),
    *("again", "found", "twice", "slowest"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """How one publish ended, as the producing process wrote it down."""

    id: str
    outcome: str
    sent: bool
    redelivered: bool
    reason: str
    seconds: float

    @property
    def leg(self) -> str:
        """During which fault it was published."""
        return self.id.rpartition("-")[0]

    @property
    def unknown(self) -> bool:
        return self.outcome == "OutcomeUnknown"

    @property
    def may_be_there(self) -> bool:
        """Whether a message of this id may lie in a queue."""
        return self.outcome == "Routed" or (self.unknown and self.sent)


class Ledger:
    """Receipts on one side, messages on the other.

    Args:
        entries: of the producing process.
        found: the ids of all messages that were found, as often as they were.
    """

    def __init__(self, entries: Iterable[Entry], found: Iterable[str]) -> None:
        self.entries = list(entries)
        self.found = Counter(found)

    @classmethod
    def close(cls, account: Path, address: Address, queues: Iterable[str]) -> Ledger:
        """Read what the producing process wrote, and empty the queues."""
        entries = [Entry(**json.loads(line)) for line in account.read_text().splitlines()]
        return cls(entries, [id for queue in queues for id in emptied(address, queue)])

    @property
    def legs(self) -> list[str]:
        """The faults, in the order in which they came."""
        return list({entry.leg: None for entry in self.entries})

    def of(self, leg: str) -> list[Entry]:
        """Return the receipts of what was published around one fault."""
        return [entry for entry in self.entries if entry.leg == leg]

    def problems(self, *, jobs: int, window: int) -> list[str]:
        """Return what cannot be explained.

        Args:
            jobs: how many the process was told to publish.
            window: how many may have been under way when a fault came.
        """
        by_id = {entry.id: entry for entry in self.entries}
        found = []
        if len(self.entries) != jobs or len(by_id) != jobs:
            found.append(
                f"{jobs} jobs were allowed, {len(self.entries)} receipts of {len(by_id)} came"
            )
        for entry in self.entries:
            times = self.found[entry.id]
            if entry.outcome == "Routed" and not times:
                found.append(f"routed and nowhere: {entry}")
            elif times and not entry.may_be_there:
                found.append(f"in a queue in spite of its receipt: {entry}")
            elif times > 1 and not (entry.redelivered or entry.unknown):
                found.append(f"{times} times in a queue and not redelivered: {entry}")
        found += [f"in a queue without a receipt: {id}" for id in self.found if id not in by_id]
        unknown = Counter(entry.leg for entry in self.entries if entry.unknown and entry.sent)
        found += [
            f"{count} unknown of fault {leg}, more than the window of {window}"
            for leg, count in unknown.items()
            if count > window
        ]
        return found

    def table(self) -> str:
        """Return the ledger as text, a line a fault."""
        rows = [_COLUMNS, *map(self._row, self.legs)]
        widths = [max(len(str(row[at])) for row in rows) for at in range(len(_COLUMNS))]
        return "\n".join(
            "  ".join(
                f"{cell:<{width}}" if at == 0 else f"{cell:>{width}}"
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        )

    def _row(self, leg: str) -> tuple[Any, ...]:
        entries = self.of(leg)
        outcomes = Counter(entry.outcome for entry in entries)
        return (
            leg,
            len(entries),
            *(outcomes[name] for name in ("Routed", "Unroutable", "Rejected")),
            sum(entry.unknown and entry.sent for entry in entries),
            sum(entry.unknown and not entry.sent for entry in entries),
            sum(entry.redelivered for entry in entries),
            sum(self.found[entry.id] > 0 for entry in entries),
            sum(self.found[entry.id] > 1 for entry in entries),
            f"{max(entry.seconds for entry in entries):.1f} s",
        )


def emptied(address: Address, queue: str) -> list[str]:
    """Take all messages of a queue; return their ids, each compared with what its body says."""
    connection = connect(address)
    found: list[str] = []

    def take(message: Any) -> None:
        id = message.properties["message_id"]
        headers = message.properties["application_headers"]
        args, _, _ = decode(message.body, message.properties["content_type"])
        assert id == headers["id"] == message.properties["correlation_id"] == args[0]
        found.append(id)

    try:
        channel = connection.default_channel
        count = channel.queue_declare(queue, passive=True).message_count
        channel.basic_consume(queue, no_ack=True, callback=take)
        while len(found) < count:
            connection.drain_events(timeout=30)
        assert not channel.queue_declare(queue, passive=True).message_count
    finally:
        connection.release()
    return found
