"""What a topology file says, as values; no I/O, nothing of RabbitMQ's API."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    StringConstraints,
    model_validator,
)

from broker.topology.access import User
from broker.topology.delays import Delays
from broker.topology.links import Federation, Shovel
from broker.topology.operation import Limits, OperatorPolicy, Policy
from broker.topology.results import Results, Serializer, check_backend, completed
from broker.topology.schedules import Schedule, ScheduleName
from broker.topology.settings import RETRY_SINCE, known
from broker.topology.strict import Strict
from broker.topology.structure import Binding, DeadLetter, Exchange, Queue, QueueType, Retry
from broker.topology.switches import Ignore, Lint
from broker.topology.values import (
    Duration,
    HostPort,
    Name,
    Part,
    PositiveDuration,
    ShortText,
    TaskPath,
    check_addressable,
)

if TYPE_CHECKING:
    from broker.topology.source import Source
else:
    Source = Any  # pydantic resolves the name; the module behind it imports the YAML library

__all__ = [
    "Binding",
    "Broker",
    "DeadLetter",
    "Delays",
    "Exchange",
    "Federation",
    "Ignore",
    "JobSpec",
    "Limits",
    "Lint",
    "Once",
    "OperatorPolicy",
    "Policy",
    "Queue",
    "QueueType",
    "Results",
    "Retry",
    "Schedule",
    "Shovel",
    "Topology",
    "User",
    "Vhost",
    "WorkerSpec",
]

# -- the broker and the virtual host --------------------------------------------------


def _version_text(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError(f'a version stands in quotes: "{value}"')
    return value


class Broker(Strict):
    """Which RabbitMQ the topology is for."""

    requires: Annotated[
        Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+){0,2}$")] | None,
        BeforeValidator(_version_text),
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
    protected_from_deletion: bool | None = None
    """Whether RabbitMQ refuses to delete it."""


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
    """Whether its result is kept where `results:` says."""


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
    """How many messages it holds, of all its queues together; as many as it runs tasks, when not
    given."""
    weights: dict[str, Annotated[int, Field(ge=1)]] = {}
    """How its slots are divided among its queues: a queue with 3 has three times as many as one
    with 1, which is the weight of a queue that is not named. Each has at least one."""
    starvation: Part | None = None
    """The least part of its slots, such as `25%`, that the queues after the first have together."""
    time_limit: PositiveDuration | None = None
    """How long a job may run that says no `time_limit` itself; only prefork can end one."""
    health: HostPort | None = None
    """Where it answers /livez, /readyz and /metrics, such as 127.0.0.1:9808; nowhere, when not
    given."""
    remote_control: bool = False
    """Whether `celery inspect` and Flower reach it; needs rights on a few more names."""


# A file, or a function as a dotted path.
STORE_PATTERN = r"^(sqlite:.+|[A-Za-z_][\w.]*:[A-Za-z_][\w.]*)$"


class Once(Strict):
    """Where workers keep what is finished of jobs that must not run again."""

    store: Annotated[str, StringConstraints(pattern=STORE_PATTERN)]
    """`sqlite:PATH`, relative to this file, for workers on one machine; or `module:factory`, a
    function of yours that returns a store that several machines share."""


# -- the whole file -------------------------------------------------------------------


Named = Annotated[str, Field(min_length=1), AfterValidator(check_addressable)]
# Components with a section of their own, or none that people write.
_ELSEWHERE = {
    "shovel": "shovels",
    "federation-upstream": "federation.upstreams",
    "federation-upstream-set": "federation.upstream_sets",
    "vhost-limits": "limits",
    "policy": "policies",
    "operator_policy": "operator_policies",
}


def _refuse_elsewhere(value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for component in value:
        if component in _ELSEWHERE:
            raise ValueError(f"component {component} stands under {_ELSEWHERE[component]}")
    return value


def _refuse_own(value: dict[str, Any]) -> dict[str, Any]:
    for name in value:
        if name.startswith("rabbitry."):
            raise ValueError(f"{name!r} is reserved: rabbitry. begins what it records itself")
    return value


Parameters = Annotated[dict[Named, dict[Named, Any]], AfterValidator(_refuse_elsewhere)]
GlobalParameters = Annotated[dict[Named, Any], AfterValidator(_refuse_own)]
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
    delays: Delays | None = None
    """How long jobs may wait on RabbitMQ before they are due; none may, when not given."""
    jobs: dict[Annotated[str, Field(min_length=1)], JobSpec] = {}
    """Jobs by name."""
    workers: dict[Annotated[str, Field(min_length=1)], WorkerSpec] = {}
    """Worker daemons by name."""
    once: Once | None = None
    """Where finished jobs of tasks with `once=` are recorded; none may say it, when not given."""
    results: Results | None = None
    """Where results are kept of jobs that say `store: true`; none may say it, when not given."""
    accept: list[Serializer] = []
    """What else workers read as the body of a job: `pickle`. They always read json and msgpack."""

    policies: dict[Named, Policy] = {}
    """Hand-written policies by name, beside those that queues and exchanges compile to."""
    operator_policies: dict[Named, OperatorPolicy] = {}
    """Operator policies by name."""
    users: dict[Named, User] = {}
    """Users by name."""
    limits: Limits = Limits()
    """Limits of the virtual host."""
    shovels: dict[Named, Shovel] = {}
    """Dynamic shovels by name."""
    federation: Federation = Federation()
    """Federation upstreams and sets of them."""
    parameters: Parameters = {}
    """Any other runtime parameters: by component, then by name."""
    global_parameters: GlobalParameters = {}
    """Global parameters by name."""
    schedules: dict[ScheduleName, Schedule] = {}
    """Jobs that recur, by name of the schedule."""
    lint: Lint = Lint()
    """Rules of `rabbitry topology lint` that are switched off."""

    _source: Source | None = PrivateAttr(default=None)

    @classmethod
    def load(cls, path: str | Path, *, overlay: Iterable[str | Path] = ()) -> Topology:
        """Read a topology file.

        Args:
            path: the YAML file.
            overlay: files that are laid over it, the last one on top.

        Raises:
            TopologyError: the file is missing or wrong; says the line and the column.
        """
        from broker.topology.load import load

        return load(path, overlay=overlay)

    def broker_url(self, environ: Mapping[str, str] = os.environ) -> str | None:
        """Return `broker.url` with its ${VAR} and ${file:PATH} resolved, or None.

        Raises:
            TopologyError: a variable is not set, or a file cannot be read.
        """
        from broker.topology.references import resolve
        from broker.topology.source import Position

        if self.broker.url is None:
            return None
        place = self._source.value(("broker", "url")) if self._source else Position("topology")
        return resolve(self.broker.url, environ=environ, position=place)

    def results_url(self, environ: Mapping[str, str] = os.environ) -> str | None:
        """Return `results.backend` with its ${VAR} and ${file:PATH} resolved, or None.

        Raises:
            TopologyError: a variable is not set, a file cannot be read, or it is no Redis.
        """
        from broker.topology.references import resolve
        from broker.topology.source import Position

        if self.results is None:
            return None
        path = ("results", "backend")
        place = self._source.value(path) if self._source else Position("topology")
        url = resolve(self.results.backend, environ=environ, position=place)
        try:
            return completed(check_backend(url))
        except ValueError as exc:
            raise place.error(f"results.backend: {exc}") from None

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

    @model_validator(mode="after")
    def _reserve_the_ladder(self) -> Self:
        """Refuse names that the delay ladder takes."""
        asked = self.broker.requires
        retried = not known(RETRY_SINCE, asked) and any(each.retry for each in self.queues.values())
        if self.delays is not None or retried:
            for name in (*self.exchanges, *self.queues):
                if name.startswith(f"{self.name}.delays."):
                    raise ValueError(f"{name!r} is reserved: delays make {self.name}.delays.…")
        return self

    @model_validator(mode="after")
    def _reserve_the_token(self) -> Self:
        """Refuse names that the schedulers' token takes."""
        own = {f"{self.name}.schedule", f"{self.name}.schedule.state"} if self.schedules else set()
        for name in own.intersection((*self.exchanges, *self.queues)):
            raise ValueError(f"{name!r} is reserved: schedules make {self.name}.schedule…")
        return self

    @model_validator(mode="after")
    def _reserve_the_cancellations(self) -> Self:
        """Refuse the name that cancellations take."""
        name = f"{self.name}.cancellations"
        if self.workers and name in (*self.exchanges, *self.queues):
            raise ValueError(f"{name!r} is reserved: workers read it for what is cancelled")
        return self
