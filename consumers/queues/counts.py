"""What RabbitMQ's statistics say of queues.

They lag: a queue tells its counts every five seconds, and the management API holds what it
answers for a moment, so that a number is up to nine seconds old. What is exact is a passive
declare, of ready messages alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from broker.errors import MissingOnBroker
from broker.management import Management

# So many queues are asked for one by one; more are taken from the list of all.
ONE_BY_ONE = 20


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """What is known of one queue; None where RabbitMQ does not say (yet).

    Attributes:
        name, type, state: of the queue.
        ready: messages that wait for a consumer.
        priorities: of the ready ones, by priority; quorum queues since 4.3 alone.
        returned: of the ready ones, those that were delivered before: served before all else.
        unacked: in the hands of consumers.
        delayed: set aside for a retry.
        dead_lettering: waiting for a dead-letter queue to confirm them.
        consumers: how many there are.
        in_per_s, out_per_s, acked_per_s: messages published to it, delivered and acked a second.
        memory_bytes: of the queue's process.
        message_bytes: of all messages' bodies.
    """

    name: str
    type: str
    state: str
    ready: int | None
    priorities: Mapping[str, int] | None
    returned: int | None
    unacked: int | None
    delayed: int | None
    dead_lettering: int | None
    consumers: int | None
    in_per_s: float | None
    out_per_s: float | None
    acked_per_s: float | None
    memory_bytes: int | None
    message_bytes: int | None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> QueueCounts:
        """Read one queue as the management API describes it."""
        stats = answer.get("message_stats") or {}
        known = "messages_ready" in answer
        priorities = answer.get("messages_by_priority")
        return cls(
            name=str(answer["name"]),
            type=str(answer.get("type", "")),
            state=str(answer.get("state", "unknown")),
            ready=_count(answer.get("messages_ready")),
            priorities={key: count for key, value in priorities.items() if (count := _count(value))}
            if isinstance(priorities, Mapping)
            else None,
            returned=_count(answer.get("messages_ready_returned")),
            unacked=_count(answer.get("messages_unacknowledged")),
            delayed=_count(answer.get("messages_delayed")),
            dead_lettering=_count(answer.get("messages_dlx")),
            consumers=_count(answer.get("consumers")),
            in_per_s=_rate(stats, "publish", known=known),
            out_per_s=_rate(stats, "deliver_get", known=known),
            acked_per_s=_rate(stats, "ack", known=known),
            memory_bytes=_count(answer.get("memory")),
            message_bytes=_count(answer.get("message_bytes")),
        )

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def counts_of(management: Management, names: Iterable[str] | None) -> list[QueueCounts]:
    """Ask for the counts of queues.

    Args:
        management: the management API, whose address names the virtual host.
        names: of the queues, in this order; None for all that there are, by name.

    Raises:
        MissingOnBroker: a queue, or the virtual host, does not exist.
        BrokerUnavailable: see `broker.errors`.
    """
    vhost = management.address.vhost_name
    wanted = None if names is None else list(names)
    if wanted is not None and len(wanted) <= ONE_BY_ONE:
        answers = {name: management.find("queues", vhost, name) for name in wanted}
    else:
        found = management.get("queues", vhost, enable_queue_totals=False)
        answers = {str(each["name"]): each for each in found}
    if wanted is None:
        wanted = sorted(answers)
    missing = [name for name in wanted if answers.get(name) is None]
    if missing:
        raise MissingOnBroker(
            f"RabbitMQ has no queue {missing[0]!r} in virtual host {vhost!r};"
            " `rabbitry topology apply` makes those of the topology, `rabbitry queues list --all`"
            " shows those that there are"
        )
    return [QueueCounts.of(answers[name] or {}) for name in wanted]


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _rate(stats: Mapping[str, Any], name: str, *, known: bool) -> float | None:
    details = stats.get(f"{name}_details")
    if isinstance(details, Mapping) and isinstance(details.get("rate"), (int, float)):
        return round(float(details["rate"]), 1)
    # RabbitMQ has no statistics of what has not happened yet.
    return 0.0 if known else None
