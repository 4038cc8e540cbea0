"""Deliveries read at once instead of field by field: most of what a message costs to receive.

py-amqp reads a message's twenty headers, its properties and its delivery through functions that
know every type of AMQP; here the few types that jobs have are read in one loop, and whatever else
there is goes to py-amqp. What comes out is what py-amqp makes of the same frames. It relies on
py-amqp's inside, which is why that is pinned to one version.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

from amqp.basic_message import Message
from amqp.exceptions import UnexpectedFrame
from amqp.serialization import _read_item
from amqp.utils import bytes_to_str

METHOD, HEADER, BODY = 1, 2, 3
_DELIVER = b"\x00\x3c\x00\x3c"
_DELIVER_SIG = (60, 60)
_short = Struct(">H").unpack_from
_long = Struct(">I").unpack_from
_signed = Struct(">i").unpack_from
_long_long = Struct(">Q").unpack_from
_signed_long_long = Struct(">q").unpack_from
# Of a header frame: where the size of the body, the flags and the first property are.
_SIZE_AT, _FLAGS_AT, _PROPERTIES_AT = 4, 12, 14
_TEXT, _INT, _LONG, _BOOL, _NONE, _TABLE = b"SIltVF"
_HEADERS_FLAG, _MODE_FLAG, _PRIORITY_FLAG, _TIMESTAMP_FLAG = 0x2000, 0x1000, 0x0800, 0x0040
_PROPERTIES = (
    *((0x8000, "content_type"), (0x4000, "content_encoding")),
    *((_HEADERS_FLAG, "application_headers"), (_MODE_FLAG, "delivery_mode")),
    *((_PRIORITY_FLAG, "priority"), (0x0400, "correlation_id"), (0x0200, "reply_to")),
    *((0x0100, "expiration"), (0x0080, "message_id"), (_TIMESTAMP_FLAG, "timestamp")),
    *((0x0020, "type"), (0x0010, "user_id"), (0x0008, "app_id"), (0x0004, "cluster_id")),
)
# Names of headers that are kept decoded; they are few, unless somebody makes them up.
_MOST_NAMES = 1000
Frame = tuple[int, int, bytes]


class Deliveries:
    """Reads the deliveries of one of py-amqp's connections, and leaves all other frames to it.

    Args:
        connection: py-amqp's, open.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._others: Callable[[Frame], Any] = connection.on_inbound_frame
        self._open: dict[int, _Delivery] = {}
        self._read = Reader()
        connection.on_inbound_frame = self.on_frame

    def on_frame(self, frame: Frame) -> Any:
        """Deal with a frame; returns whether it was the last of something."""
        kind, number, content = frame
        delivery = self._open.get(number)
        if delivery is None:
            if kind != METHOD or content[:4] != _DELIVER:
                return self._others(frame)
            self._connection.bytes_recv += 1
            self._open[number] = _Delivery(content)
            return False
        self._connection.bytes_recv += 1
        if kind == HEADER and delivery.properties is None:
            delivery.missing = _long_long(content, _SIZE_AT)[0]
            delivery.properties = self._read.properties(content, _FLAGS_AT)
        elif kind == BODY and delivery.properties is not None:
            delivery.missing -= len(content)
            delivery.chunks.append(content)
        else:
            raise UnexpectedFrame(f"a frame of type {kind} came amidst a delivery")
        if delivery.missing > 0:
            return False
        del self._open[number]
        self._hand_over(self._connection.channels[number], delivery)
        return True

    def _hand_over(self, channel: Any, delivery: _Delivery) -> None:
        message = Message()
        properties = message.properties = delivery.properties or {}
        chunks = delivery.chunks
        message.body = chunks[0] if len(chunks) == 1 else b"".join(chunks) or ""
        message.ready = True
        if channel.is_closing:
            channel.dispatch_method(_DELIVER_SIG, delivery.method, message)
            return
        encoding = properties.get("content_encoding")
        if chunks and channel.auto_decode and encoding is not None and encoding != "binary":
            message.body = _decoded(message.body, encoding)
        channel._callbacks[_DELIVER_SIG](*_arguments(delivery.method), message)


class _Delivery:
    """A delivery of which not all frames are there."""

    __slots__ = ("chunks", "method", "missing", "properties")

    def __init__(self, method: bytes) -> None:
        self.method = method
        self.properties: dict[str, Any] | None = None
        self.missing = 0
        self.chunks: list[bytes] = []


class Reader:
    """Reads AMQP's properties and tables."""

    def __init__(self) -> None:
        self._names: dict[bytes, str] = {}

    def properties(self, data: bytes, at: int) -> dict[str, Any]:
        """Return the properties of a message.

        Args:
            data: a header frame's content.
            at: where the flags are.
        """
        (flags,) = _short(data, at)
        at += 2
        found: dict[str, Any] = {}
        for flag, name in _PROPERTIES:
            if not flags & flag:
                continue
            if flag == _HEADERS_FLAG:
                stop = at + 4 + _long(data, at)[0]
                found[name] = self._table(data, at + 4, stop)
                at = stop
            elif flag in (_MODE_FLAG, _PRIORITY_FLAG):
                found[name] = data[at]
                at += 1
            elif flag == _TIMESTAMP_FLAG:
                (found[name],) = _long_long(data, at)
                at += 8
            else:
                stop = at + 1 + data[at]
                found[name] = data[at + 1 : stop].decode("utf-8", "surrogatepass")
                at = stop
        return found

    def _table(self, data: bytes, at: int, stop: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        names = self._names
        while at < stop:
            begin = at + 1
            at = begin + data[at]
            raw = data[begin:at]
            name = names.get(raw)
            if name is None:
                name = self._name(raw)
            kind = data[at]
            at += 1
            if kind == _TEXT:
                begin = at + 4
                at = begin + _long(data, at)[0]
                try:
                    found[name] = data[begin:at].decode("utf-8", "surrogatepass")
                except UnicodeDecodeError:
                    found[name] = data[begin:at]
            elif kind == _NONE:
                found[name] = None
            elif kind == _LONG:
                (found[name],) = _signed_long_long(data, at)
                at += 8
            elif kind == _INT:
                (found[name],) = _signed(data, at)
                at += 4
            elif kind == _BOOL:
                found[name] = data[at] != 0
                at += 1
            elif kind == _TABLE:
                begin = at + 4
                at = begin + _long(data, at)[0]
                found[name] = self._table(data, begin, at)
            else:
                found[name], at = _read_item(data, at - 1)
        return found

    def _name(self, raw: bytes) -> Any:
        try:
            name = bytes_to_str(raw)
        except UnicodeDecodeError:
            return raw
        if len(self._names) < _MOST_NAMES:
            self._names[raw] = name
        return name


def _decoded(body: bytes, encoding: str) -> bytes | str:
    try:
        return body.decode(encoding)
    except (LookupError, ValueError):
        # As py-amqp does: it stays as it is.
        return body


def _arguments(method: bytes) -> tuple[str, int, bool, str, str]:
    """Return the consumer tag, delivery tag, whether redelivered, exchange and routing key."""
    at = 5 + method[4]
    consumer_tag = method[5:at].decode("utf-8", "surrogatepass")
    (tag,) = _long_long(method, at)
    redelivered = bool(method[at + 8] & 1)
    begin = at + 10
    at = begin + method[begin - 1]
    exchange = method[begin:at].decode("utf-8", "surrogatepass")
    begin = at + 1
    key = method[begin : begin + method[at]].decode("utf-8", "surrogatepass")
    return consumer_tag, tag, redelivered, exchange, key
