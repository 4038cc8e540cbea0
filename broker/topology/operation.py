"""Hand-written policies and limits, as a topology file says them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from broker.topology.strict import Strict
from broker.units import milliseconds, parse_duration, parse_size


def _ms(text: str) -> int:
    return milliseconds(parse_duration(text))


# RabbitMQ counts in milliseconds and bytes, people write 30s and 16MiB.
_READ: Mapping[str, Callable[[str], Any]] = {
    "message-ttl": _ms,
    "expires": _ms,
    "consumer-timeout": _ms,
    "consumer-disconnected-timeout": _ms,
    "delayed-retry-min": _ms,
    "delayed-retry-max": _ms,
    "max-length-bytes": parse_size,
    "stream-max-segment-size-bytes": parse_size,
}


def _definition(value: dict[str, Any]) -> dict[str, Any]:
    if not value:
        raise ValueError("a policy needs at least one key")
    return {
        key: _READ[key](inner) if key in _READ and isinstance(inner, str) else inner
        for key, inner in value.items()
    }


Definition = Annotated[dict[str, Any], AfterValidator(_definition)]
Pattern = Annotated[str, Field(min_length=1)]


class Policy(Strict):
    """A policy; at most one applies to a queue or exchange, that of the highest priority."""

    pattern: Pattern
    """A regular expression (Erlang's) of names; not anchored unless it has `^` and `$`."""
    apply_to: Literal[
        "all", "exchanges", "queues", "classic_queues", "quorum_queues", "streams"
    ] = "all"
    """What it applies to."""
    priority: int = 0
    """Which one applies where several match. Generated policies have 100."""
    definition: Definition
    """RabbitMQ's keys as they stand, with hyphens; durations and sizes as people write them."""
    protected: bool = False
    """Never deleted, also when it is gone from this file."""


class OperatorPolicy(Strict):
    """A policy that limits what others ask for; the lower value wins."""

    pattern: Pattern
    """A regular expression (Erlang's) of names; not anchored unless it has `^` and `$`."""
    apply_to: Literal["all", "queues", "classic_queues", "quorum_queues", "streams"] = "queues"
    """What it applies to."""
    priority: int = 0
    """Which one applies where several match."""
    definition: Definition
    """RabbitMQ's keys as they stand, with hyphens; durations and sizes as people write them."""
    protected: bool = False
    """Never deleted, also when it is gone from this file."""


class Limits(Strict):
    """What RabbitMQ lets the virtual host have; -1 is without end."""

    max_connections: Annotated[int, Field(ge=-1)] | None = None
    """Connections."""
    max_queues: Annotated[int, Field(ge=-1)] | None = None
    """Queues."""
