"""A cancellation: who gives up which job, as it travels to the workers; pure.

The format is written down in ``docs/reference/message.md``.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from sys import intern
from typing import Any
from uuid import uuid4

from broker.body import JSON, Body
from broker.errors import CallFailed, InvalidMessage
from broker.message import PERSISTENT, SHORT_STRING_BYTES, Message

# Who cancels says when, by the clock of its machine, and who published said so by another one's.
# What was published more than this after it was cancelled is another job of the same id.
CLOCK_SKEW_MS = 5_000


class CallCancelled(CallFailed):
    """Somebody has cancelled the call: `rabbitry jobs cancel`, another process, Celery's revoke.

    Attributes:
        reason: the worker's words.
    """

    def __init__(self, *, job: str, message_id: str, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"the call of {job!r} ({message_id}) was cancelled: {reason}",
            job=job,
            message_id=message_id,
        )


@dataclass(frozen=True, slots=True)
class Cancellation:
    """One job that nobody wants any more.

    Attributes:
        id: of its message.
        by: who gave it up, for people to read.
        at_ms: when, milliseconds since 1970-01-01 UTC.
    """

    id: str
    by: str
    at_ms: int

    def holds_for(self, published_ms: Any) -> bool:
        """Say whether it is about a message of its id; not one that was published afterwards.

        Args:
            published_ms: milliseconds since 1970-01-01 UTC, or what a message says instead.
        """
        return not isinstance(published_ms, int) or published_ms <= self.at_ms + CLOCK_SKEW_MS

    def message(self) -> Message:
        """Return it as a message.

        Raises:
            InvalidMessage: no message has such an id.
        """
        if not self.id or len(self.id.encode("utf-8", "replace")) > SHORT_STRING_BYTES:
            raise InvalidMessage(
                f"the id of a job is a text of 1 to {SHORT_STRING_BYTES} bytes, not {self.id!r}"
            )
        content = json.dumps({"id": self.id, "by": self.by, "at": self.at_ms}).encode()
        id = str(uuid4())
        return Message(
            id,
            Body(content, JSON, "utf-8"),
            {},
            {"delivery_mode": PERSISTENT, "message_id": id, "timestamp": self.at_ms // 1000},
        )


def read_cancellation(content: bytes | memoryview | str) -> Cancellation:
    """Read the body of a cancellation.

    Raises:
        InvalidMessage: it is none.
    """
    try:
        value = json.loads(bytes(content) if isinstance(content, memoryview) else content)
    # Also what is no UTF-8.
    except ValueError as exc:
        raise InvalidMessage(f"a cancellation cannot be read: {exc}") from exc
    id = value.get("id") if isinstance(value, dict) else None
    if not isinstance(id, str) or not id:
        raise InvalidMessage("a cancellation names no id")
    by, at_ms = value.get("by"), value.get("at")
    return Cancellation(
        id,
        # The same few, again and again.
        intern(by) if isinstance(by, str) else "",
        # Without a time it is about every message of this id.
        at_ms if isinstance(at_ms, int) and not isinstance(at_ms, bool) else 2**62,
    )


def myself() -> str:
    """Return what this process calls itself where it cancels: ``PID@HOST``."""
    return f"{os.getpid()}@{socket.gethostname()}"
