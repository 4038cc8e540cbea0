"""What a topology file says, as values; no I/O, nothing of RabbitMQ's API."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    model_validator,
)

from broker.topology.values import (
    Duration,
    Name,
    PositiveDuration,
    ShortText,
    Size,
    TaskPath,
)

if TYPE_CHECKING:
    from broker.topology.source import Source
else:
    Source = Any  # pydantic resolves the name; the module behind it imports the YAML library

QueueType = Literal["quorum", "classic", "stream"]


class Strict(BaseModel):
    """A frozen value that refuses unknown keys and never converts between types."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


# -- the broker and the virtual host --------------------------------------------------


def _version_text(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError(f'a version stands in quotes: "{value}"')
    return value


class Broker(Strict):
    """Which RabbitMQ the topology is for."""

    requires: Annotated[
        str | None,
        BeforeValidator(_version_text),
        Field(pattern=r"^[0-9]+(\.[0-9]+){0,2}$"),
    ] = None
    """The least version of RabbitMQ, such as "4.3"; an older one is refused."""
    url: str | None = None
    """Where RabbitMQ is, when neither --url nor RABBITRY_URL says; may hold ${VAR}."""


class Vhost(Strict):
    """The virtual host that holds everything in the file."""

    name: Annotated[str, Field(min_length=1)] = "/"
    """Its name; one that is written in the URL wins over it."""
    default_queue_type: QueueType = "quorum"
    """The type of queues that do not say one, in the file and on the broker."""
    description: str | None = None
    """A sentence for people."""
    tags: list[str] | None = None
    """RabbitMQ's tags of the virtual host."""


# -- exchanges, queues, bindings ------------------------------------------------------


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


class Retry(Strict):
    """How RabbitMQ redelivers what failed: set aside for delay times attempt, at most max_delay."""

    delay: PositiveDuration
    """The wait before the first redelivery; the n-th one waits n times as long."""
    max_delay: PositiveDuration | None = None
    """The longest wait."""
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


# -- jobs and workers -----------------------------------------------------------------


class JobSpec(Strict):
    """A job: how it travels, what it takes."""

    task: TaskPath | None = None
    """The function that runs it, `package.module:function`; none where others run it."""
    exchange: Annotated[ShortText, Field(min_length=1)]
    """The exchange that it is published to."""
    routing_key: ShortText = ""
    """Its routing key."""
    arguments: dict[str, dict[str, Any]] | None = None
    """A JSON Schema for each keyword argument, in the order of the parameters; one without
    `default` is required."""
    priority: Annotated[int, Field(ge=0, le=31)] | None = None
    """Its priority, 0-31, 31 first. RabbitMQ counts a message without one as 4."""
    deadline: PositiveDuration | None = None
    """How long after publishing it may still start."""
    time_limit: PositiveDuration | None = None
    """How long it may run."""
    store: bool = False
    """Whether its result is kept."""


class WorkerSpec(Strict):
    """A worker daemon."""

    queues: Annotated[list[str], Field(min_length=1)]
    """The queues that it consumes."""
    pool: Literal["prefork", "threads", "solo", "gevent"] = "prefork"
    """How it runs tasks at the same time; only prefork can end one that runs too long."""
    concurrency: Annotated[int, Field(ge=1)] = 2
    """How many tasks run at the same time."""
    grace: Duration = timedelta(seconds=25)
    """How long running tasks may go on after a request to stop."""
    prefetch: Annotated[int, Field(ge=1)] | None = None
    """How many messages it holds; as many as it runs tasks, when not given."""
    remote_control: bool = False
    """Whether `celery inspect` and Flower reach it; needs rights on a few more names."""


# -- the whole file -------------------------------------------------------------------


def _refuse_content(value: dict[str, Any] | None) -> dict[str, Any]:
    if value:
        raise ValueError("this section is not supported by this version yet; leave it empty")
    return {}


Later = Annotated[dict[str, Any] | None, AfterValidator(_refuse_content)]
TopologyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class Topology(Strict):
    """What exists on the broker, which jobs there are, and who runs them."""

    version: Literal[1]
    """The version of this format."""
    name: TopologyName
    """Whose objects these are: letters, digits, `.`, `-` and `_`. Part of the names of the
    policies that are generated."""
    broker: Broker = Broker()
    """Which RabbitMQ."""
    vhost: Vhost = Vhost()
    """The virtual host."""
    exchanges: dict[Name, Exchange] = {}
    """Exchanges by name."""
    queues: dict[Name, Queue] = {}
    """Queues by name."""
    jobs: dict[Annotated[str, Field(min_length=1)], JobSpec] = {}
    """Jobs by name."""
    workers: dict[Annotated[str, Field(min_length=1)], WorkerSpec] = {}
    """Worker daemons by name."""

    policies: Later = {}
    operator_policies: Later = {}
    users: Later = {}
    limits: Later = {}
    shovels: Later = {}
    federation: Later = {}
    parameters: Later = {}
    schedules: Later = {}

    _source: Source | None = PrivateAttr(default=None)

    @classmethod
    def load(cls, path: str | Path) -> Topology:
        """Read a topology file.

        Args:
            path: the YAML file.

        Raises:
            TopologyError: the file is missing or wrong; says the line and the column.
        """
        from broker.topology.load import load

        return load(path)

    def broker_url(self, environ: Mapping[str, str] = os.environ) -> str | None:
        """Return `broker.url` with its ${VAR} and ${file:PATH} resolved, or None.

        Raises:
            TopologyError: a variable is not set, or a file cannot be read.
        """
        from broker.topology.load import resolve
        from broker.topology.source import Position

        if self.broker.url is None:
            return None
        place = self._source.value(("broker", "url")) if self._source else Position("topology")
        return resolve(self.broker.url, environ=environ, position=place)

    @property
    def source(self) -> Source | None:
        """Where each value stands in the file, or None where there is no file."""
        return self._source

    def placed(self, source: Source) -> Self:
        """Return the topology with the places of its values; for `load`."""
        self._source = source
        return self

    @model_validator(mode="before")
    @classmethod
    def _inherit_queue_type(cls, data: Any) -> Any:
        """Give queues that say no type the virtual host's."""
        if not isinstance(data, dict):
            return data
        # `queues:` with nothing below it is an empty section, `jobs.high:` a queue as it comes.
        data = {key: {} if value is None else value for key, value in data.items()}
        if not isinstance(queues := data.get("queues"), dict):
            return data
        vhost = data.get("vhost")
        said = vhost.get("default_queue_type") if isinstance(vhost, dict) else None
        if isinstance(vhost, Vhost):
            said = vhost.default_queue_type
        inherited = said if said in get_args(QueueType) else Vhost().default_queue_type
        filled = {
            name: {"type": inherited, **(queue or {})}
            if queue is None or isinstance(queue, dict)
            else queue
            for name, queue in queues.items()
        }
        return {**data, "queues": filled}
