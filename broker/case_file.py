"""The case file of a dead letter: what went wrong, as headers of the message.

A worker writes one before it gives a message up. What RabbitMQ dead-letters by itself (the
delivery limit, a TTL, a full queue, a plain reject) has none, but its ``x-death`` tells enough to
be read as one. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from broker.message import ATTEMPT as _FIRST_ATTEMPT
from broker.message import DELIVERY_COUNT, ORIGIN, attempt_of

# All headers of a case file begin so, and are taken off when the message is sent again.
CASE_PREFIX = "rabbitry-case-"
REASON = CASE_PREFIX + "reason"
ERROR = CASE_PREFIX + "error"
MESSAGE = CASE_PREFIX + "message"
TRACEBACK = CASE_PREFIX + "traceback"
ATTEMPT = CASE_PREFIX + "attempt"
FIRST = CASE_PREFIX + "first"
LAST = CASE_PREFIX + "last"
WORKER = CASE_PREFIX + "worker"
VERSION = CASE_PREFIX + "version"
EXCHANGE = CASE_PREFIX + "exchange"
ROUTING_KEY = CASE_PREFIX + "routing-key"
QUEUE = CASE_PREFIX + "queue"
# How often the message was replayed: stays on it, so that a replay knows where to stop.
REPLAYS = "rabbitry-replays"

# RabbitMQ's own record of dead-lettering, and what deliveries are counted with.
DEATHS = "x-death"
HISTORY = (
    *(DEATHS, DELIVERY_COUNT, "x-acquired-count", _FIRST_ATTEMPT, ORIGIN),
    *("x-first-death-reason", "x-first-death-queue", "x-first-death-exchange"),
    *("x-last-death-reason", "x-last-death-queue", "x-last-death-exchange"),
)

# Headers of a message share one frame, by default of 131,072 bytes.
SHORT_BYTES = 255
MESSAGE_BYTES = 2048
TRACEBACK_BYTES = 8192
_CUT = "\n  […]\n"


class Reason(StrEnum):
    """Why a message is dead."""

    # A worker's words.
    FAILED = "failed"  # the task raised, and its queue delivers nothing a second time
    LIMIT = "limit"  # the task raised in every attempt that its queue allows
    GIVEN_UP = "given-up"  # the task raised what it says to give up on
    KILLED = "killed"  # its process died in every attempt
    TIME_LIMIT = "time-limit"  # it ran for longer than it may
    DEADLINE = "deadline"  # it was not begun in time
    CANCELLED = "cancelled"  # whoever published it, or an operator, gave it up
    UNKNOWN_JOB = "unknown-job"  # the worker has no task of this name
    ARGUMENTS = "arguments"  # they do not fit the task's signature
    UNDECODABLE = "undecodable"  # the body is not what its content type says
    CONTENT_TYPE = "content-type"  # the worker does not read bodies of this type
    SHAPE = "shape"  # the body decodes, but is no job
    # RabbitMQ's.
    DELIVERY_LIMIT = "delivery_limit"  # returned, or its consumer lost, once too often
    EXPIRED = "expired"
    REJECTED = "rejected"
    MAXLEN = "maxlen"


# What RabbitMQ's words mean: where it gives up by itself, nobody else could say why.
_MEANS: dict[str, str] = {
    Reason.DELIVERY_LIMIT: "RabbitMQ gave it up: each time its worker, or the worker's connection,"
    " was lost before it was done, or it was returned",
    Reason.EXPIRED: "RabbitMQ gave it up: its time to live ended while it waited",
    Reason.REJECTED: "a consumer rejected it, and did not say why",
    Reason.MAXLEN: "RabbitMQ gave it up: its queue was full",
}


@dataclass(frozen=True, slots=True)
class CaseFile:
    """What went wrong with one message, and where it was.

    Attributes:
        reason: one of `Reason`, or a word that a later version knows.
        error: qualified name of the exception's class, or "".
        message: its text, or "".
        traceback: a short one, or "".
        attempt: how many times the message was delivered; 0 where nobody knows.
        first_ms, last_ms: when it first failed and when it was given up, milliseconds since
            1970-01-01 UTC, or None.
        worker: name of the daemon, or "".
        version: of rabbitry in it, or "".
        exchange, routing_key: what the message was published to; None where nobody knows.
        queue: that it was in when it died.
        replays: how often it has been replayed.
    """

    reason: str
    error: str = ""
    message: str = ""
    traceback: str = ""
    attempt: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    worker: str = ""
    version: str = ""
    exchange: str | None = None
    routing_key: str | None = None
    queue: str = ""
    replays: int = 0

    def headers(self, *, most_bytes: int = 32_768) -> dict[str, Any]:
        """Return the case file as headers, to be added to the message's own.

        Args:
            most_bytes: of all texts together; the traceback is shortened to fit, then left out,
                and so is the message.
        """
        found: dict[str, Any] = {}
        for name, text in (
            (REASON, self.reason),
            (ERROR, self.error),
            (WORKER, self.worker),
            (VERSION, self.version),
            (EXCHANGE, self.exchange),
            (ROUTING_KEY, self.routing_key),
            (QUEUE, self.queue),
        ):
            if text or (name in (EXCHANGE, ROUTING_KEY) and text is not None):
                found[name] = bounded(text, SHORT_BYTES)
        for name, number in (
            (ATTEMPT, self.attempt),
            (FIRST, self.first_ms),
            (LAST, self.last_ms),
            (REPLAYS, self.replays),
        ):
            if number is not None and (number or name == ATTEMPT):
                found[name] = number
        for name, text, bound in (
            (MESSAGE, self.message, MESSAGE_BYTES),
            (TRACEBACK, self.traceback, TRACEBACK_BYTES),
        ):
            left = most_bytes - sum(len(str(each).encode()) for each in found.values())
            if text and left > len(_CUT) * 2:
                found[name] = bounded(text, min(bound, left))
        return found


def of(headers: Mapping[str, Any], properties: Mapping[str, Any] | None = None) -> CaseFile | None:
    """Read the case file of a message, or what RabbitMQ recorded instead of one.

    Args:
        headers: the message's.
        properties: its other properties, by AMQP's names; ``timestamp`` stands for the first
            time where RabbitMQ recorded no other.

    Returns:
        The case, or None for a message that never died. Values of a kind that they should not
        have are left out.
    """
    replays = _number(headers.get(REPLAYS)) or 0
    if _text(headers.get(REASON)):
        return CaseFile(
            reason=_text(headers.get(REASON)),
            error=_text(headers.get(ERROR)),
            message=_text(headers.get(MESSAGE)),
            traceback=_text(headers.get(TRACEBACK)),
            attempt=_number(headers.get(ATTEMPT)) or 0,
            first_ms=_number(headers.get(FIRST)),
            last_ms=_number(headers.get(LAST)),
            worker=_text(headers.get(WORKER)),
            version=_text(headers.get(VERSION)),
            exchange=_text_or_none(headers.get(EXCHANGE)),
            routing_key=_text_or_none(headers.get(ROUTING_KEY)),
            queue=_text(headers.get(QUEUE)),
            replays=replays,
        )
    deaths = headers.get(DEATHS)
    if not isinstance(deaths, (list, tuple)) or not deaths or not isinstance(deaths[0], Mapping):
        return None
    # The latest stands first.
    latest = deaths[0]
    keys = latest.get("routing-keys")
    last_ms = _milliseconds(latest.get("time"))
    delivered = _number(headers.get(DELIVERY_COUNT))
    reason = _text(latest.get("reason")) or "unknown"
    return CaseFile(
        reason,
        message=_MEANS.get(reason, ""),
        # The next one is not made.
        attempt=0 if delivered is None else attempt_of(headers) - 1,
        first_ms=_milliseconds((properties or {}).get("timestamp")) or last_ms,
        last_ms=last_ms,
        exchange=_text(headers.get(ORIGIN)) or _text_or_none(latest.get("exchange")),
        routing_key=_text_or_none(keys[0]) if isinstance(keys, (list, tuple)) and keys else None,
        queue=_text(latest.get("queue")),
        replays=replays,
    )


def without_case(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message's headers without its case file and RabbitMQ's record of its death."""
    return {
        name: value
        for name, value in headers.items()
        if not name.startswith(CASE_PREFIX) and name not in HISTORY
    }


def bounded(text: str, most_bytes: int) -> str:
    """Return a text of at most so many bytes of UTF-8: its beginning and, mostly, its end."""
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= most_bytes:
        return encoded.decode()
    room = most_bytes - len(_CUT.encode())
    if room <= 0:
        return encoded[:most_bytes].decode("utf-8", "ignore")
    # The end of a traceback says what happened, its beginning only from where it was called.
    before = room // 4
    head = encoded[:before].decode("utf-8", "ignore")
    return head + _CUT + encoded[before - room :].decode("utf-8", "ignore")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _milliseconds(value: Any) -> int | None:
    """Read a time as AMQP libraries give it: seconds, or a datetime."""
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)
    seconds = _number(value)
    return None if seconds is None else seconds * 1000
