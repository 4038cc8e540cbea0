"""The message on the wire: Celery's task protocol 2 with our headers.

The format is written down in ``docs/reference/message.md``. Everything here is pure: the time is
an argument.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple
from uuid import uuid4

from broker.body import Body, Serializer, encode
from broker.contracts import PRIORITIES, Contract, Job
from broker.errors import InvalidArguments, InvalidMessage

PUBLISHED = "rabbitry-published"
DEADLINE = "rabbitry-deadline"
CALL = "rabbitry-call"
# Of a call: whether its caller wants to be told that it has begun, and how far it is.
NEWS = "rabbitry-news"
SIGNATURE = "rabbitry-signature"
STARTED = "rabbitry-started"
FINISHED = "rabbitry-finished"
WORKER = "rabbitry-worker"
# RabbitMQ's own: how often the delivery failed before.
DELIVERY_COUNT = "x-delivery-count"
# Of a job that waited for its next attempt on the delay ladder, and is a new message to RabbitMQ:
# which attempt its first delivery is, and the exchange that it was published to.
ATTEMPT = "rabbitry-attempt"
ORIGIN = "rabbitry-exchange"

# Kombu's: what the body must be decompressed with.
COMPRESSION = "compression"

RESERVED_PREFIXES = ("rabbitry-", "x-")
CELERY_HEADERS = frozenset(
    (
        *("lang", "task", "id", "root_id", "parent_id", "group", "group_index", "shadow", "eta"),
        *("expires", "retries", "timelimit", "argsrepr", "kwargsrepr", "origin", "meth"),
        *("ignore_result", "replaced_task_nesting", "stamped_headers", "stamps"),
        COMPRESSION,
    )
)
PERSISTENT = 2
# RabbitMQ closes the channel for a longer one.
MOST_TTL_MS = 2**32 - 1
EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
_REPR_CHARACTERS = 200
_REPR_ITEMS = 10
# Longer ones are cut before they are described.
_REPR_TEXT = 5 * _REPR_CHARACTERS
_PLAIN = frozenset((int, float, bool, type(None)))
# Past what a header of 64 bits can say.
_FOREVER_S = 1e15
# AMQP's short strings: names, routing keys and most properties.
SHORT_STRING_BYTES = 255


@dataclass(frozen=True, slots=True)
class Message:
    """One message, ready to be published.

    Attributes:
        id: unique; also the property ``message_id``.
        body: encoded, with its content type.
        headers: AMQP's header table.
        properties: AMQP's other properties, by kombu's names.
    """

    id: str
    body: Body
    headers: Mapping[str, Any]
    properties: Mapping[str, Any]


def attempt_of(headers: Mapping[str, Any]) -> int:
    """Return which attempt a delivery is, 1 for the first."""
    first, failed = headers.get(ATTEMPT), headers.get(DELIVERY_COUNT)
    return max(1, _count(first)) + _count(failed)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def job_message(
    contract: Contract,
    job: Job,
    *,
    published_ms: int,
    reply_to: str | None = None,
    parent_id: str | None = None,
    root_id: str | None = None,
    serializer: Serializer = "json",
) -> Message:
    """Write a job as a message; its arguments are checked by `Contract.check` before.

    Args:
        contract: the job's contract.
        job: what to publish.
        published_ms: the time, milliseconds since 1970-01-01 UTC.
        reply_to: the queue that waits for the reply; makes the message a call.
        parent_id, root_id: the job within which this one is published, if any.
        serializer: of the body.

    Raises:
        InvalidMessage: the arguments, headers or ids cannot be put into a message.
        InvalidArguments: the priority or deadline is out of range.
    """
    options = options_of(contract, job)
    id = job.id or str(uuid4())
    correlation_id = job.correlation_id or id
    body = body_of(contract, job, serializer=serializer)
    headers: dict[str, Any] = {
        "lang": "py",
        "task": contract.name,
        "id": id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [contract.time_limit_s, None],
        "root_id": root_id or id,
        "parent_id": parent_id,
        "argsrepr": short_repr(tuple(job.args)),
        "kwargsrepr": short_repr(dict(job.kwargs)),
        "origin": _origin(os.getpid()),
        "ignore_result": reply_to is None and not contract.store,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        PUBLISHED: published_ms,
    }
    if options.deadline_ms is not None:
        headers[DEADLINE] = published_ms + options.deadline_ms
    properties: dict[str, Any] = {
        "delivery_mode": PERSISTENT,
        "priority": options.priority,
        "message_id": id,
        "correlation_id": correlation_id,
        "timestamp": published_ms // 1000,
    }
    if reply_to is not None:
        headers[CALL] = True
        properties["reply_to"] = reply_to
    if options.ttl_ms is not None:
        properties["expiration"] = str(options.ttl_ms)
    if job.headers:
        headers.update(checked_headers(contract.name, job.headers))
    if job.compression is not None:
        content, headers[COMPRESSION] = compressed(contract.name, body.content, job.compression)
        body = Body(content, body.content_type, body.content_encoding)
    return Message(id, body, headers, properties)


class Options(NamedTuple):
    """What a job's own options and its contract's come to.

    Attributes:
        priority: 0-31.
        deadline_ms: from publishing on, or None.
        ttl_ms: after which RabbitMQ takes it for dead, or None.
    """

    priority: int
    deadline_ms: int | None
    ttl_ms: int | None


def options_of(contract: Contract, job: Job) -> Options:
    """Check a job's ids, priority and deadline.

    Raises:
        InvalidMessage: an id is no short text.
        InvalidArguments: the priority or deadline is out of range.
    """
    for what, text in (("id", job.id), ("correlation id", job.correlation_id)):
        if text and not _is_short(text):
            raise InvalidMessage(
                f"the {what} of job {contract.name!r} must be a text of at most"
                f" {SHORT_STRING_BYTES} bytes"
            )
    priority = contract.priority if job.priority is None else job.priority
    if type(priority) is not int or priority not in PRIORITIES:
        raise InvalidArguments(
            f"the priority of job {contract.name!r} must be a whole number from"
            f" {PRIORITIES.start} to {PRIORITIES.stop - 1}, not {priority!r}",
            job=contract.name,
        )
    deadline_s = contract.deadline_s if job.deadline_s is None else job.deadline_s
    if deadline_s is None:
        return Options(priority, None, None)
    if not 0 < deadline_s < _FOREVER_S:
        raise InvalidArguments(
            f"the deadline of job {contract.name!r} must be more than 0 seconds,"
            f" not {deadline_s!r}",
            job=contract.name,
        )
    deadline_ms = round(deadline_s * 1000)
    expires = contract.expires and deadline_ms <= MOST_TTL_MS
    return Options(priority, deadline_ms, deadline_ms if expires else None)


def body_of(contract: Contract, job: Job, *, serializer: Serializer) -> Body:
    """Encode a job's arguments.

    Raises:
        InvalidMessage: they cannot be put into a message.
    """
    if not all(isinstance(key, str) for key in job.kwargs):
        raise InvalidMessage(f"the keyword arguments of job {contract.name!r} need names of text")
    try:
        return encode([list(job.args), dict(job.kwargs), EMBED], serializer=serializer)
    except InvalidMessage as exc:
        raise InvalidMessage(f"the arguments of job {contract.name!r}: {exc}") from exc


def compressed(job: str, content: bytes, compression: str) -> tuple[bytes, str]:
    """Compress a body as kombu does, and return with it the header that says so.

    Raises:
        InvalidMessage: no compression of this name is installed.
    """
    from kombu.compression import compress

    try:
        smaller, kind = compress(content, compression)
    except KeyError:
        raise InvalidMessage(
            f"job {job!r}: no compression is named {compression!r}; kombu knows gzip, bzip2, lzma"
            " and, where they are installed, zstd and brotli"
        ) from None
    return smaller, kind


def short_repr(value: Any) -> str:
    """Return a short text of arguments for logs: arrays as dtype and shape, long ones cut."""
    kind = type(value)
    if kind is tuple and len(value) <= _REPR_ITEMS:
        plain = _all_plain(value)
    else:
        plain = kind is dict and len(value) <= _REPR_ITEMS and _all_plain(value.values())
    text = repr(value) if plain else _repr(value, depth=3)
    return text if len(text) <= _REPR_CHARACTERS else text[: _REPR_CHARACTERS - 1] + "…"


def _all_plain(items: Iterable[Any]) -> bool:
    for item in items:
        kind = type(item)
        if kind not in _PLAIN and not (kind is str and len(item) <= _REPR_TEXT):
            return False
    return True


def _repr(value: Any, depth: int) -> str:
    kind = type(value)
    if kind.__module__.partition(".")[0] == "numpy" and getattr(value, "ndim", False):
        return f"array({value.dtype}, {value.shape})"
    if kind in (list, tuple, dict) and depth == 0:
        return "…"
    if kind is dict:
        items = [f"{key!r}: {_repr(item, depth - 1)}" for key, item in _few(value.items())]
        return "{" + ", ".join(items) + "}"
    if kind is tuple:
        items = [_repr(item, depth - 1) for item in _few(value)]
        return "(" + ", ".join(items) + ("," if len(value) == 1 else "") + ")"
    if kind is list:
        return "[" + ", ".join(_repr(item, depth - 1) for item in _few(value)) + "]"
    if isinstance(value, (str, bytes)) and len(value) > _REPR_TEXT:
        value = value[:_REPR_TEXT]
    try:
        return repr(value)
    # The repr is a courtesy to logs; an argument that cannot describe itself still travels.
    except Exception:  # noqa: BLE001
        return f"<{kind.__name__}>"


def _few(items: Any) -> list[Any]:
    found: list[Any] = []
    for item in items:
        if len(found) == _REPR_ITEMS:
            break
        found.append(item)
    return found


def checked_headers(job: str, headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the producer's own headers.

    Raises:
        InvalidMessage: one bears a name that is reserved, or none that AMQP can express.
    """
    for name in headers:
        if not _is_short(name):
            raise InvalidMessage(f"job {job!r}: the header {name!r} needs a short text as its name")
        if name.startswith(RESERVED_PREFIXES) or name in CELERY_HEADERS:
            raise InvalidMessage(
                f"job {job!r}: the header {name!r} is reserved; choose a name that neither"
                " begins with rabbitry- or x- nor is one of Celery's"
            )
    return dict(headers)


def _is_short(text: Any) -> bool:
    try:
        return isinstance(text, str) and len(text.encode()) <= SHORT_STRING_BYTES
    except UnicodeEncodeError:
        return False


@cache
def _origin(pid: int) -> str:
    # By process, since a fork keeps what its parent has cached.
    return f"{pid}@{socket.gethostname()}"
