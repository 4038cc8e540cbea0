"""Empties queues, and knows when a queue is empty: also of what a passive declare cannot see."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from broker.errors import ProvisioningFailed
from broker.topology.replace.moves import GetRefused, move
from broker.topology.replace.shovel import move_by_shovel
from broker.topology.replace.site import Site

# From so many messages on, a shovel is worth starting.
SHOVEL_FROM = 200
# Consumers that are quick finish what waits by themselves, in order.
CONSUMERS_FIRST_S = 5.0
SAMPLE_S = 0.5
TELL_S = 10.0
UNKNOWN_S = 30.0

_COUNTS = {
    "messages_ready": "ready",
    "messages_unacknowledged": "in the hands of consumers",
    "messages_delayed": "set aside for a retry",
    "messages_dlx": "waiting to be dead-lettered",
}


class NotDrained(ProvisioningFailed):
    """A queue keeps messages that nobody can move; what holds them is told."""


def empty(site: Site, source: str, exchange: str, *, refuses: bool = False) -> int:
    """Move what is ready in a queue; return how many messages that were.

    Args:
        site: where.
        source: the queue.
        exchange: leads to where the messages go.
        refuses: whether the queue there may be full, so that messages are offered again.

    Raises:
        ProvisioningFailed, Unreachable, AccessRefused: see `broker.errors`.
    """
    ready = site.ready(source)
    if ready is None or not ready.messages:
        return 0
    by_shovel = 0
    if ready.messages >= SHOVEL_FROM and not ready.consumers and not refuses:
        if move_by_shovel(site, source, exchange):
            by_shovel = ready.messages
            site.say(f"moved {by_shovel:,} messages by a shovel, {source!r} → {exchange!r}")
        else:
            site.say("no shovel can be used here: moving messages over AMQP")
    told = time.monotonic()

    def tell(moved: int) -> None:
        nonlocal told
        if time.monotonic() - told > TELL_S:
            told = time.monotonic()
            site.say(f"moved {moved:,} messages over AMQP, {source!r} → {exchange!r}")

    ready = site.ready(source)
    if ready is None or not ready.messages:
        return by_shovel
    # What was ready now, lest a queue that fills as fast be moved for ever.
    by_amqp = move(site, source, exchange, most=ready.messages, on_moved=tell)
    if by_amqp:
        site.say(f"moved {by_amqp:,} messages over AMQP, {source!r} → {exchange!r}")
    return by_shovel + by_amqp


def drain(site: Site, queues: Mapping[str, str], *, refuses: bool = False) -> int:
    """Empty queues until they have shown no message for `site.settle_s`.

    Args:
        site: where.
        queues: the exchange that leads to where its messages go, by queue; a queue that does
            not exist is empty.
        refuses: see `empty`.

    Returns:
        How many messages were moved; consumers may have finished others.

    Raises:
        NotDrained: nothing has changed for `site.patience_s`.
        ProvisioningFailed, Unreachable, AccessRefused: see `broker.errors`.
    """
    moved = 0
    began = told = progress = time.monotonic()
    quiet_since: float | None = None
    seen: object = None
    while True:
        site.check()
        waiting: dict[str, int] = {}
        for queue, exchange in queues.items():
            ready = site.ready(queue)
            if ready is None or not ready.messages:
                continue
            waiting[queue] = ready.messages
            if ready.consumers and time.monotonic() - began < CONSUMERS_FIRST_S:
                continue
            try:
                moved += empty(site, queue, exchange, refuses=refuses)
            except GetRefused:
                # Its consumer has to finish what waits; where it has none, a shovel can be one.
                if not ready.consumers:
                    if not move_by_shovel(site, queue, exchange):
                        raise
                    moved += ready.messages
        counts = [_counts(site, queue) for queue in queues]
        now = time.monotonic()
        if (counts, waiting) != seen:
            seen, progress = (counts, waiting), now
        if waiting or any(each is None or any(each.values()) for each in counts):
            quiet_since = None
        else:
            quiet_since = quiet_since or now
            if now - quiet_since >= site.settle_s:
                return moved
        # RabbitMQ takes some seconds to count what is in a queue that is new.
        known = all(each is not None for each in counts)
        if now - progress > (site.patience_s if known else max(site.patience_s, UNKNOWN_S)):
            text = f"{_told(queues, counts)}, and nothing has changed for {site.patience_s:.0f} s"
            raise NotDrained(text, object=f"queue {next(iter(queues))!r}", reason=text)
        if now - told > TELL_S:
            told = now
            if quiet_since is None:
                site.say(f"waiting: {_told(queues, counts)}")
        time.sleep(min(SAMPLE_S, site.settle_s / 4))


def _counts(site: Site, queue: str) -> Mapping[str, int] | None:
    """Return what RabbitMQ's statistics count, or None while they do not know the queue."""
    answer: Mapping[str, Any] | None = site.management.find("queues", site.vhost, queue)
    if answer is None:
        return {}
    if "messages_ready" not in answer or "messages_unacknowledged" not in answer:
        return None
    return {key: int(answer.get(key) or 0) for key in _COUNTS}


def _told(queues: Mapping[str, str], counts: list[Mapping[str, int] | None]) -> str:
    parts = []
    for queue, each in zip(queues, counts, strict=True):
        what = ", ".join(f"{each[key]:,} {_COUNTS[key]}" for key in _COUNTS if each and each[key])
        if each is None:
            parts.append(f"RabbitMQ has no statistics of queue {queue!r} yet")
        elif what:
            parts.append(f"queue {queue!r} has messages: {what}")
    return "; ".join(parts) or "no queue has messages"
