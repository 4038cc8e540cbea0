"""What moves messages between brokers and queues, as a topology file says it."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from broker.topology.strict import Strict
from broker.topology.values import Duration, PositiveDuration, ShortText

Uri = Annotated[str, Field(min_length=1)]
AckMode = Literal["on-confirm", "on-publish", "no-ack"]
Protocol = Literal["amqp091", "amqp10", "local"]
Count = Annotated[int, Field(ge=0)]


class Shovel(Strict):
    """A dynamic shovel; keys are RabbitMQ's own, with underscores."""

    src_uri: Uri | list[Uri]
    """Where it takes messages from; `amqp://` alone is this node."""
    dest_uri: Uri | list[Uri]
    """Where it brings them."""
    src_protocol: Protocol | None = None
    """amqp091 unless given."""
    dest_protocol: Protocol | None = None
    """amqp091 unless given."""
    src_queue: ShortText | None = None
    """The queue it consumes."""
    src_queue_args: dict[str, Any] | None = None
    """Arguments with which it declares that queue."""
    src_exchange: ShortText | None = None
    """The exchange it binds a queue of its own to."""
    src_exchange_key: ShortText | None = None
    """The routing key of that binding."""
    src_address: str | None = None
    """The address at an AMQP 1.0 broker."""
    src_prefetch_count: Count | None = None
    """How many messages it holds; RabbitMQ's own is 1000."""
    src_predeclared: bool | None = None
    """Whether the source is expected to exist."""
    src_delete_after: Literal["never", "queue-length"] | Count | None = None
    """When it ends: never, after what waits at its start, or after so many messages."""
    src_consumer_args: dict[str, Any] | None = None
    """Arguments of its consumer."""
    dest_queue: ShortText | None = None
    """The queue it publishes to."""
    dest_queue_args: dict[str, Any] | None = None
    """Arguments with which it declares that queue."""
    dest_exchange: ShortText | None = None
    """The exchange it publishes to."""
    dest_exchange_key: ShortText | None = None
    """A routing key in place of the message's own."""
    dest_address: str | None = None
    """The address at an AMQP 1.0 broker."""
    dest_predeclared: bool | None = None
    """Whether the destination is expected to exist."""
    dest_publish_properties: dict[str, Any] | None = None
    """Properties that it sets on each message."""
    dest_add_forward_headers: bool | None = None
    """Whether it says in a header where a message came from."""
    dest_add_timestamp_header: bool | None = None
    """Whether it says in a header when."""
    dest_application_properties: dict[str, Any] | None = None
    """AMQP 1.0: application properties that it sets."""
    dest_properties: dict[str, Any] | None = None
    """AMQP 1.0: properties that it sets."""
    dest_message_annotations: dict[str, Any] | None = None
    """AMQP 1.0: annotations that it sets."""
    ack_mode: AckMode | None = None
    """on-confirm unless given: nothing is lost."""
    reconnect_delay: PositiveDuration | None = None
    """How long it waits before it connects again."""
    arguments: dict[str, Any] = {}
    """Any other key, as it stands (with hyphens)."""
    protected: bool = False
    """Never deleted, also when it is gone from this file."""

    def value(self) -> dict[str, Any]:
        """Return the value of RabbitMQ's parameter."""
        return _wire(self)


class UpstreamSettings(Strict):
    """How federation uses an upstream; keys are RabbitMQ's own, with underscores."""

    exchange: ShortText | None = None
    """The exchange there; that of the same name when not given."""
    queue: ShortText | None = None
    """The queue there; that of the same name when not given."""
    prefetch_count: Count | None = None
    """How many messages it holds; RabbitMQ's own is 1000."""
    reconnect_delay: PositiveDuration | None = None
    """How long it waits before it connects again; RabbitMQ's own is 5s."""
    ack_mode: AckMode | None = None
    """on-confirm unless given: nothing is lost."""
    trust_user_id: bool | None = None
    """Whether the user ids of messages are passed on."""
    max_hops: Annotated[int, Field(ge=1)] | None = None
    """Over how many links a message may go; RabbitMQ's own is 1."""
    expires: PositiveDuration | None = None
    """How long the upstream keeps its queue when the link is down."""
    message_ttl: Duration | None = None
    """How long messages wait there."""
    queue_type: Literal["classic", "quorum"] | None = None
    """The type of that queue."""
    consumer_tag: str | None = None
    """The tag of a queue link's consumer."""
    bind_nowait: bool | None = None
    """Whether bindings are passed on without waiting."""
    resource_cleanup_mode: Literal["default", "never"] | None = None
    """Whether what the link made upstream is deleted with it."""
    channel_use_mode: Literal["multiple", "single"] | None = None
    """Whether the link has a channel for each use."""


class Upstream(UpstreamSettings):
    """A federation upstream."""

    uri: Uri | list[Uri]
    """Where it is."""
    arguments: dict[str, Any] = {}
    """Any other key, as it stands (with hyphens)."""
    protected: bool = False
    """Never deleted, also when it is gone from this file."""

    def value(self) -> dict[str, Any]:
        """Return the value of RabbitMQ's parameter."""
        return _wire(self)


class UpstreamMember(UpstreamSettings):
    """An upstream in a set, and what is different for it there."""

    upstream: Annotated[str, Field(min_length=1)]
    """Its name."""

    def value(self) -> dict[str, Any]:
        """Return its part of the value of RabbitMQ's parameter."""
        return _wire(self)


class Federation(Strict):
    """Federation with other brokers; queues and exchanges take part by `federation_upstream`."""

    upstreams: dict[Annotated[str, Field(min_length=1)], Upstream] = {}
    """Upstreams by name."""
    upstream_sets: dict[
        Annotated[str, Field(min_length=1)], Annotated[list[UpstreamMember], Field(min_length=1)]
    ] = {}
    """Sets of upstreams by name; `all` is RabbitMQ's own, of every upstream."""

    @model_validator(mode="after")
    def _refuse_all(self) -> Self:
        if "all" in self.upstream_sets:
            raise ValueError("the set named all is RabbitMQ's own: every upstream belongs to it")
        return self


# RabbitMQ counts these in milliseconds, every other duration here in seconds.
_IN_MS = frozenset({"expires", "message_ttl"})


def _wire(model: Strict) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name in type(model).model_fields:
        inner = getattr(model, name)
        if inner is None or name in ("protected", "arguments"):
            continue
        if isinstance(inner, timedelta):
            unit = timedelta(milliseconds=1) if name in _IN_MS else timedelta(seconds=1)
            inner = inner // unit if not inner % unit else inner / unit
        value[name.replace("_", "-")] = inner
    return value | dict(getattr(model, "arguments", {}))
