"""The body of a message: JSON or msgpack, with arrays behind it where there are any.

Without arrays a body is exactly what Celery's own serializers write; with arrays it has the
layout of ``docs/reference/message.md``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from kombu.utils import json as kombu_json

from broker.errors import InvalidMessage

Serializer = Literal["json", "msgpack"]

JSON = "application/json"
MSGPACK = "application/x-msgpack"
ARRAYS_JSON = "application/vnd.rabbitry.arrays+json"
ARRAYS_MSGPACK = "application/vnd.rabbitry.arrays+msgpack"
CONTENT_TYPES = (JSON, MSGPACK, ARRAYS_JSON, ARRAYS_MSGPACK)

PLACEHOLDER = "$ndarray"
# How kombu marks what JSON has no word for; an underscore may be escaped.
_TYPE, _ESCAPED = "__type__", "\\u005"
MSGPACK_PLACEHOLDER = 78
# What `json.loads` comes to, behind what it does for other types, options and white space.
_raw_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Body:
    """An encoded body and how to read it again."""

    content: bytes
    content_type: str
    content_encoding: str


def encode(value: Any, *, serializer: Serializer = "json") -> Body:
    """Encode a value that may hold numpy arrays anywhere within.

    Args:
        value: what JSON (as kombu writes it) or msgpack can express, and arrays.
        serializer: ``json`` or ``msgpack``.

    Raises:
        InvalidMessage: something within cannot be expressed, or an array holds Python objects.
    """
    if serializer == "json":
        plain = plain_json(value)
        if plain is not None:
            return Body(plain, JSON, "utf-8")
    arrays: list[Any] = []
    try:
        if serializer == "msgpack":
            content = _dump_msgpack(value, arrays)
        else:
            content = _dump_json(value, arrays)
            # Every placeholder is ours unless the user's own data has the word too.
            if arrays and content.count(b'"$ndarray"') != len(arrays):
                arrays.clear()
                content = _dump_json(_escaped(value), arrays)
    except InvalidMessage:
        raise
    except RecursionError as exc:
        raise InvalidMessage("a value is nested too deeply, or holds itself") from exc
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidMessage(f"a value cannot be put into a {serializer} message: {exc}") from exc
    if not arrays:
        if serializer == "msgpack":
            return Body(content, MSGPACK, "binary")
        return Body(content, JSON, "utf-8")
    from broker.arrays import pack, part_of

    packed = pack(content, [part_of(array) for array in arrays])
    return Body(packed, ARRAYS_MSGPACK if serializer == "msgpack" else ARRAYS_JSON, "binary")


def decode(content: bytes | memoryview | str, content_type: str) -> Any:
    """Decode a body; arrays are read-only and lie in `content`.

    Raises:
        InvalidMessage: the content type is not one of ours, or the content is not of that type.
    """
    reader = _READERS.get(content_type)
    if reader is None:
        raise InvalidMessage(
            f"the content type {content_type!r} is not read here; known: {', '.join(CONTENT_TYPES)}"
        )
    try:
        return reader(content)
    except InvalidMessage:
        raise
    except RecursionError as exc:
        raise InvalidMessage(f"the {content_type} body is nested too deeply") from exc
    # Decoders of types that the sender names (dates, decimals) raise what they like.
    except Exception as exc:
        raise InvalidMessage(
            f"the body is not the {content_type} it says: {type(exc).__name__}: {exc}"
        ) from exc


def register_with_kombu() -> None:
    """Make kombu, and so Celery, read and write the two content types with arrays.

    The serializers are called ``rabbitry-json`` and ``rabbitry-msgpack``; registering twice is
    harmless.
    """
    from kombu.serialization import registry

    for name, encoder, content_type in (
        ("rabbitry-json", _pack_json, ARRAYS_JSON),
        ("rabbitry-msgpack", _pack_msgpack, ARRAYS_MSGPACK),
    ):
        registry.register(
            name, encoder, _READERS[content_type], content_type, content_encoding="binary"
        )
    # What kombu reads, in half the time; a worker's process and that of its pool both read a body.
    registry.register("json", None, load_json, JSON, content_encoding="utf-8")


def _pack_json(value: Any) -> bytes:
    return _packed(value, serializer="json")


def _pack_msgpack(value: Any) -> bytes:
    return _packed(value, serializer="msgpack")


def _packed(value: Any, *, serializer: Serializer) -> bytes:
    """Encode in the layout with arrays even where there are none: kombu's types are fixed."""
    body = encode(value, serializer=serializer)
    if body.content_type in (ARRAYS_JSON, ARRAYS_MSGPACK):
        return body.content
    from broker.arrays import pack

    return pack(body.content, [])


# -- JSON -----------------------------------------------------------------------------


class _Encoder(kombu_json.JSONEncoder):  # type: ignore[misc]  # kombu's types are half
    """kombu's encoder, which asks `default` only for what JSON does not know: so for arrays."""

    def __init__(self, *, arrays: list[Any], **options: Any) -> None:
        super().__init__(**options)
        self.arrays = arrays

    def default(self, o: Any) -> Any:
        if type(o).__module__.partition(".")[0] == "numpy":
            array = _plain(o)
            if not _is_array(array):
                return array
            self.arrays.append(array)
            return {PLACEHOLDER: len(self.arrays) - 1}
        return super().default(o)


class _NotPlainError(Exception):
    """Something is not JSON by itself."""


def _not_plain(_value: Any) -> Any:
    raise _NotPlainError


def _make_plain_encoder() -> Callable[[Any], str]:
    # `json.JSONEncoder.encode` makes this anew for each value, which takes longer than to use it.
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return json.JSONEncoder(default=_not_plain, check_circular=False).encode
    quote = json.encoder.encode_basestring_ascii
    chunks = make(None, _not_plain, quote, None, ": ", ", ", False, False, True)
    return lambda value: "".join(chunks(value, 0))


_encode_plain = _make_plain_encoder()


def plain_json(value: Any) -> bytes | None:
    """Return a value as JSON, as kombu writes it; None where it needs a closer look."""
    try:
        return _encode_plain(value).encode()
    # Whatever it is, the whole encoder finds the words for it.
    except Exception:  # noqa: BLE001
        return None


def _dump_json(value: Any, arrays: list[Any]) -> bytes:
    text: str = _Encoder(arrays=arrays).encode(value)
    return text.encode()


def load_json(content: bytes | memoryview | str) -> Any:
    """Read JSON as kombu does, with its types; raises what decoders raise."""
    text = content if isinstance(content, str) else str(content, "utf-8")
    # Without kombu's hook it takes half the time.
    return _load_plain(text) if is_plain_json(text) else kombu_json.loads(text)


def _load_plain(text: str) -> Any:
    try:
        value, end = _raw_decode(text)
    except json.JSONDecodeError:
        end = -1
    # Where anything stands around it `json.loads` knows what to make of that.
    return value if end == len(text) else json.loads(text)


def is_plain_json(text: str) -> bool:
    """Say whether JSON holds nothing that kombu would make a date, a UUID or another type of."""
    return _TYPE not in text and _ESCAPED not in text


def _load_arrays_json(content: bytes | memoryview | str) -> Any:
    body, arrays = _unpack(content)

    def hook(mapping: dict[str, Any]) -> Any:
        if len(mapping) == 1 and PLACEHOLDER in mapping:
            inner = mapping[PLACEHOLDER]
            if isinstance(inner, list) and len(inner) == 1:
                return {PLACEHOLDER: inner[0]}
            return arrays.take(inner)
        return kombu_json.object_hook(mapping)

    value = json.loads(str(body, "utf-8"), object_hook=hook)
    arrays.check_all_taken()
    return value


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        inner = {key: _escaped(item) for key, item in value.items()}
        if len(inner) == 1 and PLACEHOLDER in inner:
            return {PLACEHOLDER: [inner[PLACEHOLDER]]}
        return inner
    if isinstance(value, (list, tuple)):
        return [_escaped(item) for item in value]
    return value


# -- msgpack --------------------------------------------------------------------------


def _dump_msgpack(value: Any, arrays: list[Any]) -> bytes:
    import msgpack

    def default(o: Any) -> Any:
        if type(o).__module__.partition(".")[0] == "numpy":
            array = _plain(o)
            if not _is_array(array):
                return array
            arrays.append(array)
            index = (len(arrays) - 1).to_bytes(4, "little")
            return msgpack.ExtType(MSGPACK_PLACEHOLDER, index)
        raise TypeError(f"Object of type {type(o).__name__} is not msgpack serializable")

    packed: bytes = msgpack.packb(value, default=default, use_bin_type=True)
    return packed


def _load_msgpack(content: bytes | memoryview | str) -> Any:
    import msgpack

    return msgpack.unpackb(_bytes_of(content), raw=False)


def _load_arrays_msgpack(content: bytes | memoryview | str) -> Any:
    import msgpack

    body, arrays = _unpack(content)

    def ext_hook(code: int, data: bytes) -> Any:
        if code == MSGPACK_PLACEHOLDER:
            return arrays.take(int.from_bytes(data, "little"))
        return msgpack.ExtType(code, data)

    value = msgpack.unpackb(body, raw=False, ext_hook=ext_hook)
    arrays.check_all_taken()
    return value


# -- arrays ---------------------------------------------------------------------------


class _Arrays:
    """The arrays behind a body, each of which the body must name once."""

    def __init__(self, parts: list[memoryview]) -> None:
        self._parts = parts
        self._taken = [False] * len(parts)

    def take(self, index: Any) -> Any:
        from broker.arrays import array_of

        if type(index) is not int or not 0 <= index < len(self._parts):
            raise InvalidMessage(f"the body names array {index!r}; it has {len(self._parts)}")
        if self._taken[index]:
            raise InvalidMessage(f"the body names array {index} twice")
        self._taken[index] = True
        return array_of(self._parts[index])

    def check_all_taken(self) -> None:
        if not all(self._taken):
            raise InvalidMessage(f"the body does not name array {self._taken.index(False)}")


def _unpack(content: bytes | memoryview | str) -> tuple[memoryview, _Arrays]:
    from broker.arrays import unpack

    body, parts = unpack(_bytes_of(content))
    return body, _Arrays(parts)


def _plain(value: Any) -> Any:
    """Return the equal Python value of a numpy scalar where there is one, else an array."""
    import numpy as np

    if isinstance(value, (np.ndarray, np.ma.MaskedArray)):
        return value
    if isinstance(value, np.generic):
        item = value.item()
        return item if isinstance(item, (bool, int, float, str)) else np.asarray(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _is_array(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "numpy"


def _bytes_of(content: bytes | memoryview | str) -> bytes | memoryview:
    # py-amqp decodes a body as text where the content encoding says so.
    return content.encode("latin-1") if isinstance(content, str) else content


_READERS: dict[str, Callable[[bytes | memoryview | str], Any]] = {
    JSON: load_json,
    MSGPACK: _load_msgpack,
    ARRAYS_JSON: _load_arrays_json,
    ARRAYS_MSGPACK: _load_arrays_msgpack,
}
