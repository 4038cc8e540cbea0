"""AMQP 0-9-1 frames of published messages: what `basic.publish` puts on the wire.

py-amqp writes one message in four steps through a shared buffer; here a message becomes bytes
once, ready to be joined with its neighbours into one write, and to be written again as it is.
The grammar is AMQP's (chapter 4.2 of the specification); the tables are py-amqp's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from struct import Struct
from typing import Any

from broker.errors import InvalidMessage
from broker.message import Message

# All publishing of a connection happens on its first channel, so that frames can be made before
# there is a connection.
CHANNEL = 1

METHOD, HEADER, BODY = 1, 2, 3
END = b"\xce"
OVERHEAD_BYTES = 8
# The least that AMQP lets a peer agree to, and what RabbitMQ agrees to.
FRAME_MIN = 4096
FRAME_MAX = 131_072
# A body of at most this many bytes fits into one frame on every connection.
ONE_FRAME_BYTES = FRAME_MIN - OVERHEAD_BYTES

frame_start = Struct(">BHI").pack
content_start = Struct(">HHQ").pack
_BASIC, _PUBLISH = 60, 40
# The properties in the order of their flags, beginning with the highest bit.
_PROPERTIES = (
    *(("content_type", "s"), ("content_encoding", "s"), ("application_headers", "F")),
    *(("delivery_mode", "o"), ("priority", "o"), ("correlation_id", "s"), ("reply_to", "s")),
    *(("expiration", "s"), ("message_id", "s"), ("timestamp", "L"), ("type", "s")),
    *(("user_id", "s"), ("app_id", "s"), ("cluster_id", "s")),
)


class LargeContent:
    """A message whose body may need several frames; the body is never copied.

    Attributes:
        head: the frames before the body.
        body: what they announce.
    """

    __slots__ = ("body", "head")

    def __init__(self, head: bytes, body: bytes) -> None:
        self.head = head
        self.body = body

    def __len__(self) -> int:
        return len(self.head) + len(self.body)

    def buffers(self, frame_max: int) -> Iterator[bytes | memoryview]:
        """Yield what to write on a connection whose frames have at most so many bytes."""
        step = (frame_max or FRAME_MAX) - OVERHEAD_BYTES
        view = memoryview(self.body)
        before = self.head
        for start in range(0, len(view), step):
            part = view[start : start + step]
            yield before + frame_start(BODY, CHANNEL, len(part))
            yield part
            before = END
        yield before


# A small message is all its frames in one piece.
Content = bytes | LargeContent


def body_bytes(content: Content) -> int:
    """Return the size of a message's body, in bytes."""
    if isinstance(content, LargeContent):
        return len(content.body)
    method_bytes = int.from_bytes(content[3:7], "big")
    # Behind the method's frame: the start of the next, class and weight, then the size.
    at = method_bytes + OVERHEAD_BYTES + 7 + 4
    return int.from_bytes(content[at : at + 8], "big")


def wire_bytes(content: Content, frame_max: int) -> int:
    """Return how many bytes a message takes on a connection with such frames."""
    if isinstance(content, LargeContent):
        return sum(len(buffer) for buffer in content.buffers(frame_max))
    return len(content)


def publish_method(exchange: str, routing_key: str) -> bytes:
    """Return the frame of a mandatory `basic.publish`.

    Raises:
        InvalidMessage: a name is longer than AMQP's 255 bytes.
    """
    from amqp.serialization import dumps

    for what, name in (("exchange", exchange), ("routing key", routing_key)):
        if len(name.encode()) > 255:
            raise InvalidMessage(f"the {what} {name[:40]!r}… has more than 255 bytes")
    payload = Struct(">HH").pack(_BASIC, _PUBLISH) + dumps(
        "Bssbb", (0, exchange, routing_key, True, False)
    )
    frame: bytes = frame_start(METHOD, CHANNEL, len(payload)) + payload + END
    return frame


def table_entries(headers: Mapping[str, Any]) -> bytes:
    """Return the entries of a header table, without the length before them."""
    from amqp.serialization import dumps

    encoded: bytes = dumps("F", [dict(headers)])
    return encoded[4:]


def properties_of(values: Mapping[str, Any]) -> bytes:
    """Return the property flags and list of a content header; None stands for absent."""
    from amqp.serialization import dumps

    flags, kinds, given = 0, "", []
    for bit, (name, kind) in enumerate(_PROPERTIES):
        value = values.get(name)
        if value is not None:
            flags |= 0x8000 >> bit
            kinds += kind
            given.append(value)
    unknown = values.keys() - {name for name, _ in _PROPERTIES}
    if unknown:
        raise ValueError(f"AMQP has no property {sorted(unknown)[0]!r}")
    encoded: bytes = flags.to_bytes(2, "big") + dumps(kinds, given)
    return encoded


def content(method: bytes, properties: bytes, body: bytes, *, message_id: str) -> Content:
    """Return a message: the frame of its method, of its properties, and those of its body.

    Raises:
        InvalidMessage: the headers do not fit into one frame, as AMQP has it.
    """
    size = content_start(_BASIC, 0, len(body)) + properties
    if len(size) > FRAME_MAX - OVERHEAD_BYTES:
        raise InvalidMessage(
            f"the headers of message {message_id} have {len(properties)} bytes; they must fit into"
            f" one frame of {FRAME_MAX} bytes"
        )
    head = method + frame_start(HEADER, CHANNEL, len(size)) + size + END
    if len(body) > ONE_FRAME_BYTES:
        return LargeContent(head, body)
    if not body:
        return head
    return head + frame_start(BODY, CHANNEL, len(body)) + body + END


def content_of(message: Message, *, exchange: str, routing_key: str) -> Content:
    """Return the frames of any message.

    Raises:
        InvalidMessage: AMQP cannot express a header or property.
    """
    try:
        properties = properties_of(
            {
                "content_type": message.body.content_type,
                "content_encoding": message.body.content_encoding,
                "application_headers": dict(message.headers),
                **message.properties,
            }
        )
    # py-amqp raises what struct, str and its own tables raise.
    except Exception as exc:
        raise InvalidMessage(
            f"a header or property of message {message.id} cannot be sent: {exc}"
        ) from exc
    return content(
        publish_method(exchange, routing_key),
        properties,
        bytes(message.body.content),
        message_id=message.id,
    )
