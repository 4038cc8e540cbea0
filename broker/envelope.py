"""The frames of one contract's jobs: what is the same in all of them is encoded once.

A message of Celery's protocol has some twenty headers, of which six differ from job to job. Making
and encoding the whole table takes py-amqp longer than everything else about a publish together.
What comes out equals `broker.message.job_message` header by header; tests hold that.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import Any

from broker.body import JSON, Serializer, plain_json
from broker.contracts import Contract, Job
from broker.errors import InvalidMessage
from broker.frames import (
    BODY,
    CHANNEL,
    END,
    FRAME_MAX,
    HEADER,
    ONE_FRAME_BYTES,
    OVERHEAD_BYTES,
    Content,
    LargeContent,
    publish_method,
    table_entries,
)
from broker.ids import Ids
from broker.inherited import Parent
from broker.message import (
    COMPRESSION,
    DEADLINE,
    EMBED,
    NEWS,
    PERSISTENT,
    PUBLISHED,
    body_of,
    checked_headers,
    compressed,
    job_message,
    options_of,
    short_repr,
)

_VARYING = ("id", "root_id", "parent_id", "argsrepr", "kwargsrepr", PUBLISHED, DEADLINE)
_length = Struct(">I").pack
_int64 = Struct(">q").pack
# The frame's start, class and weight, and the size of the body.
_header_start = Struct(">BHIHHQ").pack
# The last property, the end of the header's frame, and the start of the body's.
_header_end = Struct(">QcBHI").pack
_BASIC = 60
# content type and encoding, headers, delivery mode, priority, both ids, timestamp.
_FLAGS = 0xFCC0
# What is there besides, where it is.
_REPLY_TO_FLAG, _TTL_FLAG = 0x0200, 0x0100
_BYTES = [bytes((number,)) for number in range(256)]
_TAIL = plain_json(EMBED)


class Envelope:
    """Puts jobs of one contract into frames.

    Args:
        contract: the jobs'.
        ids: where ids come from.
        serializer: of the arguments.
        exchange, routing_key: where to; the contract's by default.
        reply_to: the queue that waits for replies; makes each message a call.
    """

    def __init__(
        self,
        contract: Contract,
        *,
        ids: Ids,
        serializer: Serializer = "json",
        exchange: str | None = None,
        routing_key: str | None = None,
        reply_to: str | None = None,
    ) -> None:
        self.contract = contract
        self.exchange = contract.exchange if exchange is None else exchange
        self.routing_key = contract.routing_key if routing_key is None else routing_key
        self._ids = ids
        self._serializer: Serializer = serializer
        self._method = publish_method(self.exchange, self.routing_key)
        self._kinds: dict[tuple[str, str], bytes] = {}
        self._json = self._kind(JSON, "utf-8")
        self._options = options_of(contract, Job(contract.name))
        self._reply_to = reply_to
        self._flags, self._reply_to_bytes = _FLAGS, b""
        if reply_to is not None:
            name = reply_to.encode()
            self._flags, self._reply_to_bytes = _FLAGS | _REPLY_TO_FLAG, _BYTES[len(name)] + name
        self._pid = -1
        self._constant = b""

    def frames(
        self, job: Job, *, published_ms: int, news: bool = False, parent: Parent | None = None
    ) -> tuple[str, Content]:
        """Return the id of a job's message and its frames; its arguments are checked before.

        Args:
            job: what to publish.
            published_ms: the time, milliseconds since 1970-01-01 UTC.
            news: whether its caller wants to hear when a worker has accepted it.
            parent: the job within which this one is published, if any.

        Raises:
            InvalidMessage: the arguments, headers or ids cannot be put into a message.
            InvalidArguments: the priority or deadline is out of range.
        """
        if self._pid != os.getpid():
            self._encode_constant()
        id, correlation_id = job.id, job.correlation_id
        if (
            job.priority is None
            and job.deadline_s is None
            and id is None
            and correlation_id is None
        ):
            priority, deadline_ms, ttl_ms = self._options
        else:
            priority, deadline_ms, ttl_ms = options_of(self.contract, job)
        id_bytes = (id or self._ids.take()).encode()
        correlation_bytes = correlation_id.encode() if correlation_id else id_bytes
        kind, body, extra = self._body(job)
        if news:
            extra += _NEWS

        args_text = short_repr(tuple(job.args)).encode()
        kwargs_text = short_repr(dict(job.kwargs)).encode() if job.kwargs else b"{}"
        id_text = _length(len(id_bytes)) + id_bytes
        root_text, parent_text = id_text, _NO_PARENT
        if parent is not None and parent.id is not None:
            root_text, parent_text = _text(parent.root_id or parent.id), _text(parent.id)
            parent_text = _PARENT + parent_text
        table = b"".join(
            (
                self._constant,
                _int64(published_ms),
                b""
                if deadline_ms is None
                else _DEADLINE + _int64(_ends_ms(published_ms + deadline_ms, parent)),
                b"\x02idS",
                id_text,
                b"\x07root_idS",
                root_text,
                parent_text,
                b"\x08argsreprS",
                _length(len(args_text)),
                args_text,
                b"\x0akwargsreprS",
                _length(len(kwargs_text)),
                kwargs_text,
                extra,
            )
        )
        flags, between = self._flags, self._reply_to_bytes
        if ttl_ms is not None:
            text = str(ttl_ms).encode()
            flags, between = flags | _TTL_FLAG, between + _BYTES[len(text)] + text
        # Beside the table: class, weight, size and flags (14), the table's length, mode, priority,
        # the lengths of two ids, and the time.
        ids_size = len(correlation_bytes) + len(id_bytes)
        size = 14 + len(kind) + 4 + len(table) + 4 + ids_size + len(between) + 8
        if size > FRAME_MAX - OVERHEAD_BYTES:
            raise InvalidMessage(
                f"the headers of job {self.contract.name!r} have {len(table)} bytes; they must fit"
                f" into one frame of {FRAME_MAX} bytes"
            )
        one_frame = len(body) <= ONE_FRAME_BYTES
        parts = (
            self._method,
            _header_start(HEADER, CHANNEL, size, _BASIC, 0, len(body)),
            flags.to_bytes(2, "big"),
            kind,
            _length(len(table)),
            table,
            _MODE,
            _BYTES[priority],
            _BYTES[len(correlation_bytes)],
            correlation_bytes,
            between,
            _BYTES[len(id_bytes)],
            id_bytes,
            _header_end(published_ms // 1000, END, BODY, CHANNEL, len(body))
            if one_frame
            else _int64(published_ms // 1000) + END,
        )
        if one_frame:
            return id or id_bytes.decode(), b"".join((*parts, body, END))
        return id or id_bytes.decode(), LargeContent(b"".join(parts), body)

    def _body(self, job: Job) -> tuple[bytes, bytes, bytes]:
        """Return a body's type and encoding, the body, and more entries of the header table."""
        name = self.contract.name
        headers = checked_headers(name, job.headers) if job.headers else {}
        content: bytes | None = None
        if self._serializer == "json" and type(job.args) in _LISTS and type(job.kwargs) is dict:
            arguments = plain_json((job.args, job.kwargs)) if _named(job.kwargs) else None
            if arguments is not None:
                kind, content = self._json, arguments[:-1] + _BEHIND_ARGUMENTS
        if content is None:
            body = body_of(self.contract, job, serializer=self._serializer)
            kind, content = self._kind(body.content_type, body.content_encoding), body.content
        if job.compression is not None:
            content, headers[COMPRESSION] = compressed(name, content, job.compression)
        if not headers:
            return kind, content, b""
        try:
            return kind, content, table_entries(headers)
        # py-amqp raises what struct, str and its own tables raise.
        except Exception as exc:
            raise InvalidMessage(f"a header of job {name!r} cannot be sent: {exc}") from exc

    def _kind(self, content_type: str, encoding: str) -> bytes:
        kind = self._kinds.get((content_type, encoding))
        if kind is None:
            kind = b"".join(
                _BYTES[len(text)] + text for text in (content_type.encode(), encoding.encode())
            )
            self._kinds[content_type, encoding] = kind
        return kind

    def _encode_constant(self) -> None:
        """Encode what all jobs have in common; anew after a fork, since they name the process."""
        pattern = job_message(
            self.contract, Job(self.contract.name), published_ms=0, reply_to=self._reply_to
        )
        constant = {key: each for key, each in pattern.headers.items() if key not in _VARYING}
        self._constant = table_entries(constant) + _PUBLISHED
        self._pid = os.getpid()


def _named(kwargs: dict[str, Any]) -> bool:
    return not kwargs or all(type(key) is str for key in kwargs)


def _key(name: str, kind: bytes) -> bytes:
    return _BYTES[len(name)] + name.encode() + kind


def _text(value: str) -> bytes:
    content = value.encode()
    return _length(len(content)) + content


_PARENT, _NO_PARENT = _key("parent_id", b"S"), _key("parent_id", b"V")
_PUBLISHED = _key(PUBLISHED, b"L")
_DEADLINE = _key(DEADLINE, b"L")
_NEWS = _key(NEWS, b"t") + b"\x01"
_LISTS = (tuple, list)
_MODE = _BYTES[PERSISTENT]
assert _TAIL is not None
_BEHIND_ARGUMENTS = b", " + _TAIL + b"]"


def _ends_ms(own_ms: int, parent: Parent | None) -> int:
    """Return a deadline, no later than the parent's: what was left of that was asked for before."""
    if parent is None or parent.deadline_s is None:
        return own_ms
    return min(own_ms, round(parent.deadline_s * 1000))
