"""Exchanges, queues and bindings, as a topology file says them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from broker.topology.strict import Strict
from broker.topology.values import Duration, PositiveDuration, ShortText, Size

QueueType = Literal["quorum", "classic", "stream"]


class Binding(Strict):
    """A binding to the exchange or queue under which it stands."""

    exchange: Annotated[ShortText, Field(min_length=1)]
    """The exchange that messages come from."""
    routing_key: ShortText = ""
    """The key or, on a topic exchange, the pattern with `*` and `#`."""
    arguments: dict[str, Any] = {}
    """Arguments of the binding, such as the headers that a headers exchange compares."""


class Exchange(Strict):
    """An exchange."""

    type: Annotated[str, Field(min_length=1)]
    """topic, direct, fanout, headers, or the type of a plugin."""
    durable: bool = True
    """Whether it survives a restart of RabbitMQ."""
    auto_delete: bool = False
    """Whether RabbitMQ deletes it with its last binding."""
    internal: bool = False
    """Whether only other exchanges may publish to it."""
    alternate_exchange: ShortText | None = None
    """Where messages go that no binding takes. They are then never returned as unroutable."""
    arguments: dict[str, Any] = {}
    """Any other argument, as it stands."""
    bindings: list[Binding] = []
    """The exchanges that pass messages to this one."""
    federation_upstream: str | None = None
    """The federation upstream that it gets messages from."""
    federation_upstream_set: str | None = None
    """The set of upstreams instead; `all` is every one."""
    federation_upstream_pattern: str | None = None
    """The upstreams instead whose names match this regular expression."""
    protected: bool = False
    """Never deleted, also when it is gone from this file."""


class Retry(Strict):
    """How RabbitMQ redelivers what failed: set aside for delay times attempt, at most max_delay."""

    delay: PositiveDuration
    """The wait before the first redelivery; the n-th one waits n times as long."""
    max_delay: PositiveDuration | None = None
    """The longest wait; as long as `delay`, when not given."""
    limit: Annotated[int, Field(ge=0)] | None = None
    """How often a message is redelivered before it is dead-lettered; RabbitMQ's own is 20."""
    type: Literal["failed", "returned", "all"] = "failed"
    """Which redeliveries wait: those that count as failed, those returned, or all."""


class DeadLetter(Strict):
    """Where messages go that expired, were refused, or failed too often."""

    exchange: Annotated[ShortText, Field(min_length=1)]
    """The exchange that takes them."""
    routing_key: ShortText | None = None
    """A routing key in place of the message's own."""
    strategy: Literal["at-least-once", "at-most-once"] | None = None
    """at-least-once (what quorum queues get unless you say otherwise) or at-most-once."""


class Queue(Strict):
    """A queue; keys are RabbitMQ's own, without `x-` and with underscores."""

    type: QueueType
    """quorum, classic or stream; from `vhost.default_queue_type` when not given."""
    durable: bool = True
    """Whether it survives a restart of RabbitMQ."""
    auto_delete: bool = False
    """Whether RabbitMQ deletes a classic queue with its last consumer."""
    bindings: list[Binding] = []
    """Where its messages come from."""
    arguments: dict[str, Any] = {}
    """Any other argument, as it stands (`x-...`). RabbitMQ never changes one afterwards."""

    single_active_consumer: bool = False
    """One consumer at a time, the others stand by."""
    max_priority: Annotated[int, Field(ge=1, le=255)] | None = None
    """Priorities of a classic queue. Quorum queues always have 0-31."""
    quorum_initial_group_size: Annotated[int, Field(ge=1)] | None = None
    """Members of a quorum queue when it is declared."""

    retry: Retry | None = None
    """Redelivery with a delay that the broker keeps."""
    dead_letter: DeadLetter | None = None
    """Where failed messages go."""
    delivery_limit: Annotated[int, Field(ge=-1)] | None = None
    """As `retry.limit`, without a delay; -1 means never give up."""
    message_ttl: Duration | None = None
    """How long a message may wait before it is dead-lettered or dropped."""
    expires: PositiveDuration | None = None
    """How long the queue may go unused before RabbitMQ deletes it."""
    max_length: Annotated[int, Field(ge=0)] | None = None
    """The most messages it holds; what happens then says `overflow`."""
    max_length_bytes: Size | None = None
    """The most bytes it holds."""
    overflow: Literal["drop-head", "reject-publish", "reject-publish-dlx"] | None = None
    """What gives way when it is full: the oldest message, or the publisher."""
    consumer_timeout: PositiveDuration | None = None
    """How long a consumer may hold a message unacknowledged; RabbitMQ's own is 30m."""
    consumer_disconnected_timeout: PositiveDuration | None = None
    """How long a consumer that lost its node keeps its messages."""
    queue_leader_locator: Literal["client-local", "balanced"] | None = None
    """Which node leads the queue when it is declared."""
    target_group_size: Annotated[int, Field(ge=1)] | None = None
    """Members that a quorum queue is to have."""
    initial_cluster_size: Annotated[int, Field(ge=1)] | None = None
    """Members of a stream when it is declared."""
    max_age: PositiveDuration | None = None
    """How long a stream keeps what it holds."""
    stream_max_segment_size_bytes: Size | None = None
    """The size of one file of a stream."""
    stream_filter_size_bytes: Annotated[int, Field(ge=16, le=255)] | None = None
    """The size of a stream's filter for each chunk."""
    queue_version: Literal[1, 2] | None = None
    """How a classic queue stores its messages; RabbitMQ 4.3 knows 2 alone."""
    federation_upstream: str | None = None
    """The federation upstream that it gets messages from."""
    federation_upstream_set: str | None = None
    """The set of upstreams instead; `all` is every one."""
    federation_upstream_pattern: str | None = None
    """The upstreams instead whose names match this regular expression."""
    protected: bool = False
    """Never deleted, also when it is gone from this file."""
