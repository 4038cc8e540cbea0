"""Deliveries on a channel, put together from their frames.

py-amqp would do so too; but what it makes of each costs more than all the rest of a reply, and a
property that is no UTF-8, which RabbitMQ passes on as it is, ends the whole connection.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from struct import error as StructError  # noqa: N812
from typing import Any

from broker.errors import InvalidMessage
from broker.frames import BODY, HEADER, METHOD
from broker.memory import LARGE_BYTES, keep_freed

_DELIVER = b"\x00\x3c\x00\x3c"
_tag_and_bit = Struct(">QB").unpack_from
# The start of a content header: class, weight, size of the body, flags of the properties.
_header = Struct(">HHQH").unpack_from
_HEADER_BYTES = 14
_length = Struct(">I").unpack_from
_number = Struct(">q").unpack_from
# Types of a table's values.
_NUMBERS, _TEXT = b"lL", b"S"[0]
# The flags of the properties before the last that is read here, in their order.
_CONTENT_TYPE, _ENCODING, _HEADERS = 0x8000, 0x4000, 0x2000
_MODE, _PRIORITY, _CORRELATION_ID = 0x1000, 0x0800, 0x0400


class Delivery:
    """One delivery.

    Attributes:
        tag: to acknowledge it by.
        redelivered: whether RabbitMQ has delivered it before.
        body: as it came.
        correlation_id: as it came, or None.
    """

    __slots__ = ("_content_type", "_table", "body", "correlation_id", "redelivered", "tag")

    def __init__(self, tag: int, redelivered: bool, header: bytes, body: bytes) -> None:
        self.tag = tag
        self.redelivered = redelivered
        self.body = body
        self._content_type = self._table = b""
        self.correlation_id: bytes | None = None
        flags, at = _header(header)[3], _HEADER_BYTES
        if flags & _CONTENT_TYPE:
            at, self._content_type = _short(header, at)
        if flags & _ENCODING:
            at, _ = _short(header, at)
        if flags & _HEADERS:
            end = at + 4 + _length(header, at)[0]
            self._table, at = header[at:end], end
        at += bool(flags & _MODE) + bool(flags & _PRIORITY)
        if flags & _CORRELATION_ID:
            _, self.correlation_id = _short(header, at)

    @property
    def content_type(self) -> str:
        """The content type, whatever its bytes are."""
        return self._content_type.decode("utf-8", "backslashreplace")

    def headers(self) -> dict[str, Any]:
        """Read the header table.

        Raises:
            InvalidMessage: it is no table.
        """
        found = _texts_and_numbers(self._table)
        if found is not None:
            return found
        from amqp.serialization import loads

        try:
            [headers], _ = loads("F", self._table, 0)
        # py-amqp raises what struct, str and its own tables raise.
        except Exception as exc:
            raise InvalidMessage(f"its headers cannot be read: {exc}") from exc
        return dict(headers)


class Deliveries:
    """Takes the frames of one channel, and passes on what they come to.

    Args:
        deliver: is given each delivery.
    """

    def __init__(self, deliver: Callable[[Delivery], None]) -> None:
        self._deliver = deliver
        self._tag: tuple[int, bool] | None = None
        self._header = b""
        self._parts: list[bytes] = []
        self._left = 0

    def take(self, kind: int, payload: bytes) -> bool:
        """Take a frame; False where it is none of a delivery's."""
        if self._tag is None:
            if kind != METHOD or not payload.startswith(_DELIVER):
                return False
            # Behind the consumer's tag, a short text.
            tag, bit = _tag_and_bit(payload, 5 + payload[4])
            self._tag = (tag, bool(bit & 1))
            return True
        if kind == HEADER:
            self._header, self._left = payload, _header(payload)[2]
            if self._left > LARGE_BYTES:
                keep_freed()
        elif kind == BODY:
            self._parts.append(payload)
            self._left -= len(payload)
        else:
            return False  # a heartbeat, which may stand anywhere
        if not self._left:
            self._pass_on()
        return True

    def _pass_on(self) -> None:
        assert self._tag is not None
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        delivery = Delivery(*self._tag, self._header, body)
        self._tag, self._parts = None, []
        self._deliver(delivery)


def _texts_and_numbers(table: bytes) -> dict[str, Any] | None:
    """Return a table that has nothing but texts and numbers, as replies have; else None."""
    found: dict[str, Any] = {}
    at, end = 4, len(table)
    try:
        while at < end:
            begin = at + 1
            at = begin + table[at]
            name, kind = table[begin:at].decode(), table[at]
            at += 1
            if kind in _NUMBERS:
                (found[name],) = _number(table, at)
                at += 8
            elif kind == _TEXT:
                begin = at + 4
                at = begin + _length(table, at)[0]
                found[name] = table[begin:at].decode()
            else:
                return None
    except (IndexError, StructError, UnicodeDecodeError):
        return None
    return found if at == end or not table else None


def _short(data: bytes, at: int) -> tuple[int, bytes]:
    end = at + 1 + data[at]
    return end, data[at + 1 : end]
