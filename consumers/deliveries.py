"""Deliveries read at once instead of field by field: most of what a message costs to receive.

py-amqp reads a message's twenty headers, its properties and its delivery through functions that
know every type of AMQP; here the few types that jobs have are read in one loop, and whatever else
there is goes to py-amqp. What comes out is what py-amqp makes of the same frames. It relies on
py-amqp's inside, which is why that is pinned to one version.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from struct import Struct
from typing import Any

from amqp.basic_message import Message
from amqp.exceptions import UnexpectedFrame
from amqp.serialization import _read_item
from amqp.utils import bytes_to_str

from consumers.layout import Layout

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
_OCTET_FLAGS = (_MODE_FLAG, _PRIORITY_FLAG)
# Content type and encoding, of which there are few.
_WORD_FLAGS = (0x8000, 0x4000)
_PROPERTIES = (
    *((0x8000, "content_type"), (0x4000, "content_encoding")),
    *((_HEADERS_FLAG, "application_headers"), (_MODE_FLAG, "delivery_mode")),
    *((_PRIORITY_FLAG, "priority"), (0x0400, "correlation_id"), (0x0200, "reply_to")),
    *((0x0100, "expiration"), (0x0080, "message_id"), (_TIMESTAMP_FLAG, "timestamp")),
    *((0x0020, "type"), (0x0010, "user_id"), (0x0008, "app_id"), (0x0004, "cluster_id")),
)
# Names of headers that are kept decoded; they are few, unless somebody makes them up. So are the
# ways of messages, each with what its headers have in common.
_MOST_NAMES = 1000
_MOST_LAYOUTS = 100
# Tables of one way that are learned from, and of those that still differ then, one of so many.
_LEARNED, _LEARNED_OF = 32, 64
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
        self._ways: dict[bytes, tuple[bool, str, str]] = {}
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
            delivery.properties = self._read.properties(content, _FLAGS_AT, delivery.way)
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
        consumer_tag, tag = self._read.word(delivery.consumer), delivery.tag
        redelivered, exchange, key = self._way_of(delivery.way)
        channel._callbacks[_DELIVER_SIG](consumer_tag, tag, redelivered, exchange, key, message)

    def _way_of(self, raw: bytes) -> tuple[bool, str, str]:
        """Return whether a delivery is one again, its exchange and its routing key."""
        way = self._ways.get(raw)
        if way is None:
            at = 2 + raw[1]
            exchange = raw[2:at].decode("utf-8", "surrogatepass")
            key = raw[at + 1 : at + 1 + raw[at]].decode("utf-8", "surrogatepass")
            way = bool(raw[0] & 1), exchange, key
            if len(self._ways) < _MOST_NAMES:
                self._ways[raw] = way
        return way


class _Delivery:
    """A delivery of which not all frames are there.

    Args:
        method: the content of its first frame.

    Attributes:
        consumer: the consumer's tag.
        tag: of the delivery.
        way: whether it is one again, its exchange and its routing key, as they came.
    """

    __slots__ = ("chunks", "consumer", "method", "missing", "properties", "tag", "way")

    def __init__(self, method: bytes) -> None:
        at = 5 + method[4]
        self.method = method
        self.consumer = method[5:at]
        (self.tag,) = _long_long(method, at)
        self.way = method[at + 8 :]
        self.properties: dict[str, Any] | None = None
        self.missing = 0
        self.chunks: list[bytes] = []


class _Way:
    """What is known of the tables of the messages that come one way.

    Attributes:
        layout: that most of them have, if any.
        used: whether one was read by it since it was last looked whether it is still the right one.
        misses: how many were read without it.
    """

    __slots__ = ("layout", "misses", "used")

    def __init__(self) -> None:
        self.layout: Layout | None = None
        self.used = False
        self.misses = 0

    def learn(self, other: Layout | None) -> None:
        """Take the layout of a table in, which was read without one."""
        wider = self.layout.joined(other) if self.layout is not None and other is not None else None
        if wider is not None:
            self.layout = wider
        elif not self.used:
            self.layout = other
        self.used = False


class Reader:
    """Reads AMQP's properties and tables."""

    def __init__(self) -> None:
        self._names: dict[bytes, str] = {}
        self._words: dict[bytes, str] = {}
        self._ways: dict[bytes, _Way] = {}

    def properties(self, data: bytes, at: int, way: bytes = b"") -> dict[str, Any]:
        """Return the properties of a message.

        Args:
            data: a header frame's content.
            at: where the flags are.
            way: that the message came; the headers of those of one way are alike.
        """
        (flags,) = _short(data, at)
        at += 2
        found: dict[str, Any] = {}
        for flag, name in _present(flags):
            if flag == _HEADERS_FLAG:
                stop = at + 4 + _long(data, at)[0]
                found[name] = self._headers(data, at + 4, stop, way)
                at = stop
            elif flag in _OCTET_FLAGS:
                found[name] = data[at]
                at += 1
            elif flag == _TIMESTAMP_FLAG:
                (found[name],) = _long_long(data, at)
                at += 8
            else:
                begin = at + 1
                at = begin + data[at]
                text = data[begin:at]
                found[name] = self.word(text) if flag in _WORD_FLAGS else _text(text)
        return found

    def word(self, raw: bytes) -> str:
        """Return a text that is one of few."""
        word = self._words.get(raw)
        if word is None:
            word = _text(raw)
            if len(self._words) < _MOST_NAMES:
                self._words[raw] = word
        return word

    def _headers(self, data: bytes, at: int, stop: int, way: bytes) -> dict[Any, Any]:
        known = self._ways.get(way)
        if known is not None and known.layout is not None:
            found = known.layout.read(data, at, stop)
            if found is not None:
                known.used = True
                return found
        found = self._table(data, at, stop)
        if known is None:
            if len(self._ways) >= _MOST_LAYOUTS:
                return found
            known = self._ways[way] = _Way()
        known.misses += 1
        if known.misses <= _LEARNED or not known.misses % _LEARNED_OF:
            known.learn(Layout.of(data, at, stop, found))
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


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


@cache
def _present(flags: int) -> tuple[tuple[int, str], ...]:
    """Return the properties that a message has, in order."""
    return tuple((flag, name) for flag, name in _PROPERTIES if flags & flag)
