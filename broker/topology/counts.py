"""What queues hold, before one of them is deleted or replaced.

A passive declare is exact for ready messages and consumers, and for nothing else: messages
that are set aside for a retry are invisible to it. RabbitMQ's totals (one request) count all,
at once; its statistics lag by seconds, but alone tell what waits to be dead-lettered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from broker.connection import Address, connect, translated
from broker.management import Management


@dataclass(frozen=True, slots=True)
class Counts:
    """What a queue holds.

    Attributes:
        ready: messages that wait.
        unacknowledged: messages that a consumer has.
        set_aside: messages that RabbitMQ keeps for a retry.
        dead_lettering: messages that wait to be dead-lettered.
        consumers: how many there are.
    """

    ready: int = 0
    unacknowledged: int = 0
    set_aside: int = 0
    dead_lettering: int = 0
    consumers: int = 0

    @property
    def messages(self) -> int:
        """All messages."""
        return self.ready + self.unacknowledged + self.set_aside + self.dead_lettering

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost and nobody would miss it."""
        return not (self.messages or self.consumers)

    def __str__(self) -> str:
        parts = [
            f"{count} {what}"
            for count, what in (
                (self.ready, "ready"),
                (self.unacknowledged, "unacknowledged"),
                (self.set_aside, "set aside for a retry"),
                (self.dead_lettering, "waiting to be dead-lettered"),
            )
            if count
        ]
        detail = f" ({', '.join(parts)})" if parts else ""
        return f"{_number(self.messages, 'message')}{detail}, {_number(self.consumers, 'consumer')}"

    def document(self) -> dict[str, int]:
        """Return the counts as JSON."""
        return {
            "ready": self.ready,
            "unacknowledged": self.unacknowledged,
            "set_aside": self.set_aside,
            "dead_lettering": self.dead_lettering,
            "consumers": self.consumers,
        }


def count_queues(management: Management, names: Iterable[str]) -> Mapping[str, Counts]:
    """Count what queues hold: two requests, and a passive declare for each.

    Args:
        management: the management API; its address names the virtual host.
        names: of queues; those that do not exist are left out of the answer.

    Raises:
        Unreachable, AccessRefused, BrokerUnavailable: see `broker.errors`.
    """
    wanted = sorted(set(names))
    if not wanted:
        return {}
    vhost = management.address.vhost_name
    totals = _by_name(management.get("queues", vhost, disable_stats=True, enable_queue_totals=True))
    columns = "name,messages_dlx,messages_delayed,messages_unacknowledged,messages_ready,consumers"
    statistics = _by_name(management.get("queues", vhost, columns=columns))
    ready = _declared(management.address, [name for name in wanted if name in totals])
    return {
        name: _counts(totals[name], statistics.get(name, {}), *ready[name])
        for name in wanted
        if name in ready
    }


def _counts(
    totals: Mapping[str, Any], statistics: Mapping[str, Any], ready: int, consumers: int | None
) -> Counts:
    # Where two sources differ the larger one counts: this is about not losing messages.
    waiting = totals.get("messages_ready", 0)
    unacknowledged = totals.get("messages_unacknowledged", 0)
    aside = totals.get("messages", 0) - waiting - unacknowledged
    return Counts(
        ready=max(ready, waiting),
        unacknowledged=unacknowledged,
        set_aside=max(aside, statistics.get("messages_delayed") or 0, 0),
        dead_lettering=statistics.get("messages_dlx") or 0,
        consumers=(statistics.get("consumers") or 0) if consumers is None else consumers,
    )


def _declared(address: Address, names: list[str]) -> dict[str, tuple[int, int | None]]:
    """Return ready messages and consumers by passive declare; missing queues are left out."""
    import amqp.exceptions

    found: dict[str, tuple[int, int | None]] = {}
    connection = connect(address)
    try:
        with translated(address):
            channel = connection.channel()
            for name in names:
                try:
                    answer = channel.queue_declare(name, passive=True)
                except amqp.exceptions.NotFound:
                    channel = connection.channel()
                except (amqp.exceptions.AccessRefused, amqp.exceptions.ResourceLocked):
                    # It takes a configure right; the management API counts all the same.
                    found[name] = (0, None)
                    channel = connection.channel()
                else:
                    found[name] = (answer.message_count, answer.consumer_count)
    finally:
        connection.release()
    return found


def _by_name(answers: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {answer["name"]: answer for answer in answers}


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
