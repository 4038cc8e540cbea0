"""One dead letter in full, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from broker.body import decode
from broker.case_file import DEATHS, without_case
from broker.errors import InvalidMessage
from broker.message import COMPRESSION
from consumers.dead_letters.letter import NO_CASE, Letter
from consumers.queues.browse import Delivery

# Of a body that is no text, for people.
_HEX_BYTES = 256
_TEXT_CHARACTERS = 4000


def summary(letter: Letter) -> dict[str, Any]:
    """Return what a list says of a letter, as JSON has it."""
    case = letter.case
    return {
        "id": letter.id,
        "job": letter.job,
        "reason": case.reason,
        "error": case.error,
        "message": case.message,
        "attempt": case.attempt,
        "replays": case.replays,
        "first_ms": case.first_ms,
        "last_ms": case.last_ms,
        "exchange": case.exchange,
        "routing_key": case.routing_key,
        "queue": letter.queue,
    }


def document(letter: Letter) -> dict[str, Any]:
    """Return a letter in full, as JSON has it."""
    delivery = letter.delivery
    return {
        "id": letter.id,
        "job": letter.job,
        "queue": letter.queue,
        "case": None if letter.case == NO_CASE else asdict(letter.case),
        "properties": plain(dict(delivery.properties)),
        "headers": plain(without_case(delivery.headers)),
        "deaths": plain(delivery.headers.get(DEATHS) or []),
        "redelivered": delivery.redelivered,
        **body_of(delivery),
    }


def body_of(delivery: Delivery) -> dict[str, Any]:
    """Return a body decoded as ``body``, or as ``body_hex`` with ``body_error``: why."""
    found: dict[str, Any] = {"body_bytes": len(delivery.content)}
    try:
        content = delivery.content
        if COMPRESSION in delivery.headers:
            content = _decompressed(content, delivery.headers[COMPRESSION])
        value = decode(content, str(delivery.properties.get("content_type") or ""))
    except InvalidMessage as exc:
        return {**found, "body_hex": delivery.content.hex(), "body_error": str(exc)}
    return {**found, "body": plain(value)}


def lines(letter: Letter) -> Iterator[str]:
    """Yield a letter in full, for people."""
    delivery, case = letter.delivery, letter.case
    yield f"{letter.id or 'a message without an id'}  {letter.job or 'of no known job'}"
    yield from _section(
        "Why",
        {
            "reason": case.reason,
            "error": case.error,
            "message": case.message,
            "attempt": case.attempt or None,
            "first": _moment(case.first_ms),
            "given up": _moment(case.last_ms),
            "worker": " ".join(filter(None, (case.worker, case.version))),
            "published to": f"exchange {case.exchange!r}, key {case.routing_key!r}"
            if letter.origin
            else None,
            "died in": case.queue,
            "lies in": letter.queue,
            "replays": case.replays,
        },
    )
    if case.traceback:
        yield "Traceback"
        yield from (f"  {line}" for line in case.traceback.splitlines())
    yield from _section("Properties", dict(delivery.properties))
    headers = without_case(delivery.headers)
    yield from _section("Headers", headers)
    for death in delivery.headers.get(DEATHS) or ():
        if isinstance(death, dict):
            yield from _section("Died (x-death)", death)
    body = body_of(delivery)
    if "body" in body:
        yield f"Body, {body['body_bytes']:,} bytes"
        text = json.dumps(body["body"], ensure_ascii=False, indent=2)
        yield from (f"  {line}" for line in _cut(text, _TEXT_CHARACTERS).splitlines())
    else:
        yield f"Body, {body['body_bytes']:,} bytes, undecoded: {body['body_error']}"
        yield f"  {_cut(body['body_hex'], 2 * _HEX_BYTES)}"


def plain(value: Any) -> Any:
    """Return a value as JSON can express it: bytes as hexadecimal digits, arrays as lists."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).hex()
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)


def _section(title: str, values: dict[str, Any]) -> Iterator[str]:
    yield title
    shown = {key: value for key, value in values.items() if value not in (None, "")}
    width = max((len(str(key)) for key in shown), default=0)
    for key, value in shown.items():
        text = value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)
        first, *rest = text.splitlines() or [""]
        yield f"  {key!s:{width}}  {first}"
        yield from (f"  {'':{width}}  {line}" for line in rest)


def _moment(at_ms: int | None) -> str | None:
    if at_ms is None:
        return None
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(" ", "milliseconds")
    except (OverflowError, ValueError, OSError):
        return str(at_ms)


def _decompressed(content: bytes, compression: Any) -> bytes:
    from kombu.compression import decompress

    try:
        return bytes(decompress(content, compression))
    # Whatever the decompressor of the named kind raises.
    except Exception as exc:
        raise InvalidMessage(f"the body is not compressed as {compression!r} says: {exc}") from exc


def _cut(text: str, characters: int) -> str:
    if len(text) <= characters:
        return text
    return f"{text[:characters]}… ({len(text) - characters:,} more characters; --json has all)"
