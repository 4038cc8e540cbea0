"""What a worker answers to a call: news on the way and how it ended, written and read.

The body is Celery's result message, so that a Celery client with ``rpc://`` understands every one;
the format is written down in ``docs/reference/message.md``. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import Any

from broker.body import Body, decode, encode
from broker.case_file import bounded
from broker.errors import InvalidInput, InvalidMessage
from broker.frames import Content, content, publish_method
from broker.message import FINISHED, PUBLISHED, STARTED, WORKER

# Celery's states that end a call.
SUCCESS, FAILURE, REVOKED = "SUCCESS", "FAILURE", "REVOKED"
FINAL = frozenset((SUCCESS, FAILURE, REVOKED))
# Those that tell of one that is under way.
ACCEPTED, PROGRESS = "STARTED", "PROGRESS"

# Of an error: enough for a person, and far from what a message holds.
MESSAGE_BYTES = 8 * 2**10
TRACEBACK_BYTES = 32 * 2**10

_TRANSIENT = 1
_BYTES = [bytes((number,)) for number in range(256)]
_length = Struct(">I").pack
_int64 = Struct(">q").pack
# content type and encoding, headers, delivery mode, correlation id, message id.
_FLAGS = 0xF480.to_bytes(2, "big")


@dataclass(frozen=True, slots=True)
class Reply:
    """How a call ended.

    Attributes:
        task_id: the id of the job.
        failed: whether the task raised, or was not run.
        result: what it returned, or None.
        error: for a failure the class's name, the text and the traceback's text.
        published_ms, started_ms, finished_ms: milliseconds since 1970-01-01 UTC, or None where the
            worker does not say (a plain Celery worker).
        worker: its name, or None.
        revoked: whether it was not run, since somebody had taken it back.
    """

    task_id: str
    failed: bool
    result: Any = None
    error: tuple[str, str, str] | None = None
    published_ms: int | None = None
    started_ms: int | None = None
    finished_ms: int | None = None
    worker: str | None = None
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """A worker has begun with a call.

    Attributes:
        task_id: the id of the job.
        published_ms, started_ms: milliseconds since 1970-01-01 UTC, or None where the worker does
            not say.
        worker: its name, or None.
    """

    task_id: str
    published_ms: int | None = None
    started_ms: int | None = None
    worker: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a call is.

    Attributes:
        task_id: the id of the job.
        fraction: from 0 to 1, or None.
        text: for people, or None.
        partial: what there is of the result, anything that a result may be, or None.
    """

    task_id: str
    fraction: float | None = None
    text: str | None = None
    partial: Any = None


News = Accepted | Progress


def reply_body(
    task_id: str,
    status: str,
    result: Any,
    *,
    traceback: str | None = None,
    children: Sequence[Any] = (),
    **more: Any,
) -> Body:
    """Write the body of a reply.

    Args:
        task_id: the id of the job.
        status: Celery's word for it.
        result: what belongs to that.
        traceback: its text.
        children: what Celery's canvas wants of them.
        more: further keys.

    Raises:
        InvalidMessage: the result cannot be put into a message.
    """
    return encode(
        {
            "task_id": task_id,
            "status": status,
            "result": result,
            "traceback": traceback,
            "children": list(children),
            **more,
        }
    )


def progress_of(fraction: float | None, text: str | None, partial: Any) -> dict[str, Any]:
    """Return progress as it stands in a reply.

    Raises:
        InvalidInput: the fraction is no number from 0 to 1, or the text none.
    """
    if fraction is not None:
        fraction = _float(fraction)
        if not _is_fraction(fraction):
            raise InvalidInput(f"progress is a fraction from 0 to 1, not {fraction!r}")
    if text is not None and not isinstance(text, str):
        raise InvalidInput(f"the text of progress must be a text, not {text!r}")
    return {"fraction": fraction, "text": text, "partial": partial}


def error_of(exc: BaseException) -> dict[str, Any]:
    """Return an error as it stands in a reply: its class by name, its text cut where it is long."""
    kind = type(exc)
    try:
        text = str(exc)
    # An exception of the user's whose own __str__ fails.
    except Exception:  # noqa: BLE001
        text = f"<{kind.__name__} that cannot be written as text>"
    return {
        "exc_type": kind.__qualname__,
        "exc_message": [bounded(text, MESSAGE_BYTES)],
        "exc_module": kind.__module__,
    }


def reply_frames(
    body: Body,
    *,
    reply_to: str,
    correlation_id: str,
    published_ms: int | None = None,
    started_ms: int | None = None,
    finished_ms: int | None = None,
    worker: str | None = None,
) -> Content:
    """Return a reply as the frames of a message to the queue that waits for it.

    It is not persistent: a queue of replies lives as long as who waits. Its message id is the
    correlation id.

    Args:
        body: see `reply_body`.
        reply_to: the queue.
        correlation_id: of the call.
        published_ms, started_ms, finished_ms: milliseconds since 1970-01-01 UTC, as far as known.
        worker: its name.

    Raises:
        InvalidMessage: a name or id is longer than AMQP's 255 bytes.
    """
    table = b"".join(
        [
            key + _int64(value)
            for key, value in (
                (_PUBLISHED, published_ms),
                (_STARTED, started_ms),
                (_FINISHED, finished_ms),
            )
            if value is not None
        ]
    )
    if worker is not None:
        name = worker.encode()
        table += _WORKER + _length(len(name)) + name
    id = _short(correlation_id)
    properties = b"".join(
        (
            _FLAGS,
            _short(body.content_type),
            _short(body.content_encoding),
            _length(len(table)),
            table,
            _BYTES[_TRANSIENT],
            id,
            id,
        )
    )
    return content(_method(reply_to), properties, body.content, message_id=correlation_id)


def read_reply(
    content: bytes | memoryview | str, *, content_type: str, headers: Mapping[str, Any]
) -> Reply | News | None:
    """Read a reply; None for news that say nothing to a caller (Celery's RETRY).

    Raises:
        InvalidMessage: it cannot be decoded, or is no reply.
    """
    return reply_of(decode(content, content_type), headers)


def reply_of(value: Any, headers: Mapping[str, Any]) -> Reply | News | None:
    """Read a reply that is decoded; see `read_reply`."""
    if not isinstance(value, dict) or not isinstance(value.get("status"), str):
        raise InvalidMessage("the reply is not a result message of Celery's")
    status, result = value["status"], value.get("result")
    task_id = str(value.get("task_id"))
    published_ms = _int_or_none(headers.get(PUBLISHED))
    started_ms = _int_or_none(headers.get(STARTED))
    worker = _text_or_none(headers.get(WORKER))
    if status == PROGRESS:
        return _progress(task_id, result)
    if status == ACCEPTED:
        return Accepted(task_id, published_ms, started_ms, worker)
    if status not in FINAL:
        return None
    failed = status != SUCCESS
    return Reply(
        task_id=task_id,
        failed=failed,
        result=None if failed else result,
        error=_error(result, value.get("traceback")) if failed else None,
        published_ms=published_ms,
        started_ms=started_ms,
        finished_ms=_int_or_none(headers.get(FINISHED)),
        worker=worker,
        revoked=status == REVOKED,
    )


def _error(result: Any, traceback: Any) -> tuple[str, str, str]:
    detail = result if isinstance(result, dict) else {}
    module, name = detail.get("exc_module"), str(detail.get("exc_type") or "Exception")
    if module and module not in ("builtins", "None"):
        name = f"{module}.{name}"
    text = detail.get("exc_message", result if not detail else "")
    if isinstance(text, (list, tuple)):
        text = ", ".join(map(str, text))
    return name, str(text), str(traceback or "")


def _progress(task_id: str, result: Any) -> Progress:
    if not isinstance(result, dict) or not result.keys() <= {"fraction", "text", "partial"}:
        # What a task of plain Celery's says of itself.
        return Progress(task_id, partial=result)
    return Progress(
        task_id,
        fraction=_fraction_or_none(result.get("fraction")),
        text=_text_or_none(result.get("text")),
        partial=result.get("partial"),
    )


@lru_cache(maxsize=1024)
def _method(reply_to: str) -> bytes:
    return publish_method("", reply_to)


def _short(text: str) -> bytes:
    data = text.encode()
    if len(data) > 255:
        raise InvalidMessage(f"the text {text[:40]!r}… has more than AMQP's 255 bytes")
    return _BYTES[len(data)] + data


def _key(name: str, kind: bytes) -> bytes:
    return _BYTES[len(name)] + name.encode() + kind


_PUBLISHED = _key(PUBLISHED, b"L")
_STARTED = _key(STARTED, b"L")
_FINISHED = _key(FINISHED, b"L")
_WORKER = _key(WORKER, b"S")


def _is_fraction(value: Any) -> bool:
    """Say whether a value is a number from 0 to 1."""
    # NaN is in no range.
    return type(value) in (int, float) and 0 <= value <= 1


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InvalidInput(f"progress is a fraction from 0 to 1, not {value!r}") from None


def _fraction_or_none(value: Any) -> float | None:
    return float(value) if _is_fraction(value) else None


def _int_or_none(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None
