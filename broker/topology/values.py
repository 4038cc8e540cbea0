"""The values that stand in a topology file: names, durations, sizes."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from broker.host_port import HOST_PORT_PATTERN, parse_host_port
from broker.units import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    format_duration,
    format_size,
    milliseconds,
    parse_duration,
    parse_size,
)

# AMQP's short string: names and routing keys.
NAME_LIMIT_BYTES = 255

_PERCENT = r"[0-9]+(?:\.[0-9]+)?%"


def _read_duration(value: Any) -> Any:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, int | float):
        raise ValueError(f"a duration needs a unit: write {value}s or {value}ms, not {value}")
    return value


def _whole_milliseconds(value: timedelta) -> timedelta:
    milliseconds(value)
    return value


def _positive(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("it must be longer than nothing")
    return value


def _read_size(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else value


def check_name(name: str) -> str:
    """Return the name of an exchange or queue that may be declared.

    Raises:
        ValueError: why RabbitMQ would not take it, or not as it stands.
    """
    if not name:
        raise ValueError("a name cannot be empty")
    if len(name.encode()) > NAME_LIMIT_BYTES:
        raise ValueError(
            f"a name has at most {NAME_LIMIT_BYTES} bytes, this has {len(name.encode())}"
        )
    if name.startswith("amq."):
        raise ValueError(f"{name!r} is reserved: names with amq. are RabbitMQ's own")
    return check_addressable(name)


def check_addressable(name: str) -> str:
    """Return a name that RabbitMQ's management API can address.

    Raises:
        ValueError: it cannot.
    """
    if not name.isprintable():
        raise ValueError(f"{name!r} has control characters, which RabbitMQ strips or hides")
    if name in (".", ".."):
        raise ValueError(f"{name!r} cannot be addressed through RabbitMQ's management API")
    return name


def _check_short(text: str) -> str:
    if len(text.encode()) > NAME_LIMIT_BYTES:
        raise ValueError(f"it has {len(text.encode())} bytes, AMQP allows {NAME_LIMIT_BYTES}")
    return text


Duration = Annotated[
    timedelta,
    BeforeValidator(_read_duration),
    AfterValidator(_whole_milliseconds),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": DURATION_PATTERN, "examples": ["250ms", "30s", "1h30m"]}
    ),
]
PositiveDuration = Annotated[Duration, AfterValidator(_positive)]

Size = Annotated[
    int,
    BeforeValidator(_read_size),
    Field(ge=0),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": SIZE_PATTERN, "examples": ["512KiB", "16MiB"]},
            ]
        }
    ),
]


def _read_part(value: Any) -> Any:
    text = value.strip() if isinstance(value, str) else ""
    if re.fullmatch(_PERCENT, text):
        part = Decimal(text.removesuffix("%")) / 100
    elif isinstance(value, float | Decimal) and math.isfinite(value):
        # As it stands in the file: 0.07 has no exact binary form, and seven in a hundred is meant.
        part = Decimal(str(value))
    else:
        raise ValueError(f"{value!r} is no part; write a percentage such as 25%, or 0.25")
    if not 0 < part < 1:
        raise ValueError(f"{value} is not between 0% and 100%")
    return part


def _format_part(value: Decimal) -> str:
    return f"{(value * 100).normalize():f}%"


Part = Annotated[
    Decimal,
    BeforeValidator(_read_part),
    PlainSerializer(_format_part, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
                {"type": "string", "pattern": rf"^{_PERCENT}$", "examples": ["25%"]},
            ]
        }
    ),
]


def _check_host_port(text: str) -> str:
    parse_host_port(text)
    return text


HostPort = Annotated[
    str,
    AfterValidator(_check_host_port),
    WithJsonSchema(
        {"type": "string", "pattern": HOST_PORT_PATTERN, "examples": ["127.0.0.1:9808"]}
    ),
]

Name = Annotated[str, AfterValidator(check_name)]
ShortText = Annotated[str, AfterValidator(_check_short)]
# A reference by a dotted path, as in `consumers.jobs.signal:smooth`.
TaskPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]
