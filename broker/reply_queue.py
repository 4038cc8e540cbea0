"""The queue in which a long-lived caller gets its replies; pure.

It outlives the connection that consumes it by a minute, so that replies find their caller again
after a reconnection, and it is gone a minute after a caller that was killed. An exclusive queue
would vanish with its connection. https://www.rabbitmq.com/docs/direct-reply-to recommends a queue
of its own to whoever calls for long.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

PREFIX = "rabbitry.reply."
# For rights: what a caller may declare and consume.
PATTERN = r"rabbitry\.reply\..*"
# RabbitMQ deletes a queue that had no consumer for so long.
EXPIRES_MS = 60_000
ARGUMENTS: Mapping[str, Any] = MappingProxyType(
    {
        # Replies live for milliseconds: no copies of them on other nodes.
        "x-queue-type": "classic",
        "x-expires": EXPIRES_MS,
        # A connection that is lost without a word keeps its consumer until RabbitMQ notices; what
        # it does not acknowledge is delivered to its successor then, and nothing before that.
        "x-single-active-consumer": True,
    }
)
# 192 bits: replies go to whoever knows the name.
_NAME_BYTES = 24


def new_name() -> str:
    """Return a name that nobody can guess."""
    return PREFIX + secrets.token_urlsafe(_NAME_BYTES)


def is_reply_queue(name: str) -> bool:
    """Say whether a queue is a caller's."""
    return name.startswith(PREFIX)
