"""Which setting of a queue is what to RabbitMQ: an argument or a policy key, and for whom.

What RabbitMQ can take only as an argument is an argument and cannot change on a queue that
exists; everything else is a policy key and can. Which type of queue takes which key is
measured on RabbitMQ 4.3: a policy with one key that the type does not take does not apply to
the queue at all (https://www.rabbitmq.com/docs/parameters#policies).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from broker.units import milliseconds

CLASSIC, QUORUM, STREAM = "classic", "quorum", "stream"
_ALL = frozenset({CLASSIC, QUORUM, STREAM})
_QUEUES = frozenset({CLASSIC, QUORUM})


def stream_age(duration: timedelta) -> str:
    """Write a duration as streams want it: the largest unit of D, h, m, s that is whole.

    Raises:
        ValueError: the duration is not a whole number of seconds.
    """
    seconds, rest = divmod(milliseconds(duration), 1000)
    if rest:
        raise ValueError("max_age is counted in whole seconds")
    for unit, unit_s in (("D", 86_400), ("h", 3_600), ("m", 60)):
        if seconds % unit_s == 0:
            return f"{seconds // unit_s}{unit}"
    return f"{seconds}s"


def _as_it_is(value: Any) -> Any:
    return value


def known(since: str, requires: str | None) -> bool:
    """Return whether the least version of RabbitMQ knows what came with another version.

    Args:
        since: the version that it came with.
        requires: the least version that a topology asks for; None is the newest.
    """
    return requires is None or _numbers(requires) >= _numbers(since)


def _numbers(version: str) -> tuple[int, int]:
    # As a file says it, such as "4", or as RabbitMQ does, such as "4.3.0-rc.1".
    major, minor, *_ = (*re.findall(r"[0-9]+", version), "0")
    return int(major), int(minor)


@dataclass(frozen=True, slots=True)
class Setting:
    """How a key of a queue reaches RabbitMQ.

    Attributes:
        key: the name of the argument, with ``x-``, or of the policy key.
        where: ``argument`` or ``policy``.
        types: the types of queue that take it.
        encode: from the model's value to RabbitMQ's.
        since: the version of RabbitMQ that first knows it; an older one would not apply a
            policy with it at all.
    """

    key: str
    where: Literal["argument", "policy"]
    types: frozenset[str] = _QUEUES
    encode: Callable[[Any], Any] = _as_it_is
    since: str = "4.0"


SETTINGS: Mapping[str, Setting] = {
    "single_active_consumer": Setting("x-single-active-consumer", "argument"),
    "max_priority": Setting("x-max-priority", "argument", frozenset({CLASSIC})),
    "quorum_initial_group_size": Setting(
        "x-quorum-initial-group-size", "argument", frozenset({QUORUM})
    ),
    "delivery_limit": Setting("delivery-limit", "policy", frozenset({QUORUM})),
    "message_ttl": Setting("message-ttl", "policy", encode=milliseconds),
    "expires": Setting("expires", "policy", encode=milliseconds),
    "max_length": Setting("max-length", "policy"),
    "max_length_bytes": Setting("max-length-bytes", "policy", _ALL),
    "overflow": Setting("overflow", "policy"),
    "consumer_timeout": Setting("consumer-timeout", "policy", frozenset({QUORUM}), milliseconds),
    "consumer_disconnected_timeout": Setting(
        "consumer-disconnected-timeout", "policy", frozenset({QUORUM}), milliseconds, "4.3"
    ),
    "queue_leader_locator": Setting("queue-leader-locator", "policy", _ALL),
    "target_group_size": Setting("target-group-size", "policy", frozenset({QUORUM})),
    "initial_cluster_size": Setting("initial-cluster-size", "policy", frozenset({STREAM})),
    "max_age": Setting("max-age", "policy", frozenset({STREAM}), stream_age),
    "stream_max_segment_size_bytes": Setting(
        "stream-max-segment-size-bytes", "policy", frozenset({STREAM})
    ),
    "stream_filter_size_bytes": Setting("stream-filter-size-bytes", "policy", frozenset({STREAM})),
    "queue_version": Setting("queue-version", "policy", frozenset({CLASSIC})),
    "federation_upstream": Setting("federation-upstream", "policy"),
    "federation_upstream_set": Setting("federation-upstream-set", "policy"),
    "federation_upstream_pattern": Setting("federation-upstream-pattern", "policy"),
}

# What an exchange takes as policy keys.
EXCHANGE_SETTINGS: Mapping[str, str] = {
    "alternate_exchange": "alternate-exchange",
    "federation_upstream": "federation-upstream",
    "federation_upstream_set": "federation-upstream-set",
    "federation_upstream_pattern": "federation-upstream-pattern",
}

# The version of RabbitMQ that first delays a redelivery.
RETRY_SINCE = "4.3"
# The version that first protects a virtual host from deletion.
PROTECTION_SINCE = "4.1"
# Before it every list of bindings fails over one with ~ in its key and arguments (4.0: live).
TILDE_SINCE = "4.3"

# What mirrored classic queues; RabbitMQ 4 refuses a policy with any of it.
MIRRORING = frozenset(
    {"ha-mode", "ha-params", "ha-sync-mode", "ha-sync-batch-size"}
    | {"ha-promote-on-shutdown", "ha-promote-on-failure"}
)
# Denied by default from 4.3 on; `queue-leader-locator` took its place.
MASTER_LOCATOR = "queue-master-locator"

# Groups of several policy keys, compiled in `broker.topology.compile`.
GROUPS: Mapping[str, frozenset[str]] = {
    "retry": frozenset({QUORUM}),
    "dead_letter": _QUEUES,
}

# The exchanges that every virtual host has.
BUILT_IN_EXCHANGES = frozenset(
    {
        "amq.direct",
        "amq.fanout",
        "amq.headers",
        "amq.match",
        "amq.rabbitmq.trace",
        "amq.topic",
    }
)
