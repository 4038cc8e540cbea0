"""A job: its name, route, arguments, priority and deadline, as both sides agree on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from broker.errors import InvalidArguments, UnknownJob

if TYPE_CHECKING:
    from broker.topology import Topology

# What a quorum queue takes a message without priority for (RabbitMQ, "Quorum Queue Priorities").
DEFAULT_PRIORITY = 4
PRIORITIES = range(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job to publish: `Job("signal.smooth", (series,), {"window": 13}, priority=9)`.

    Attributes:
        name: of its contract.
        args, kwargs: arguments of the task.
        id: unique; made up where it is None.
        priority: 0-31; None means the contract's.
        deadline_s: seconds from publishing after which nobody wants it; None means the contract's.
        delay_s: seconds from publishing before it may reach its queue; RabbitMQ holds it.
        eta: the time before which it may not reach its queue, with a time zone; instead of
            `delay_s`.
        correlation_id: None means the id.
        headers: the producer's own, beside Celery's and ours.
        compression: of the body, by kombu's names such as ``gzip``; None sends it as it is.
    """

    name: str = field(kw_only=False)
    args: Sequence[Any] = field(default=(), kw_only=False)
    kwargs: Mapping[str, Any] = field(default_factory=dict, kw_only=False)
    id: str | None = None
    priority: int | None = None
    deadline_s: float | None = None
    delay_s: float | None = None
    eta: datetime | None = None
    correlation_id: str | None = None
    headers: Mapping[str, Any] | None = None
    compression: str | None = None


@dataclass(frozen=True)
class Contract:
    """What producers and consumers agree on about one job.

    Attributes:
        name: of the job, such as ``signal.smooth``.
        exchange, routing_key: where it is published.
        task: ``module:function`` that runs it, or None where another system does.
        arguments: a JSON Schema by argument, in the order of the parameters; None where the file
            says nothing. An argument without ``default`` is required.
        priority: 0-31.
        deadline_s: seconds after publishing when it stops being worth doing, or None.
        time_limit_s: seconds that it may run, or None.
        store: whether its result outlives the reply.
        expires: whether RabbitMQ itself may take a job past its deadline for dead: where nothing
            on its way delays it, which would let it go early, and dead letters are kept; for
            calls, where none are, since an expired call is no dead letter.
    """

    name: str
    exchange: str
    routing_key: str
    task: str | None = None
    arguments: Mapping[str, Any] | None = None
    priority: int = DEFAULT_PRIORITY
    deadline_s: float | None = None
    time_limit_s: float | None = None
    store: bool = False
    expires: bool = False

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Check arguments as far as the contract knows them.

        Raises:
            InvalidArguments: names the argument and what is wrong with it.
        """
        if self.arguments is None:
            return
        given = self._by_name(args, kwargs)
        for name, validator in self._validators.items():
            if name not in given:
                if "default" not in (self.arguments[name] or {}):
                    raise InvalidArguments(
                        f"job {self.name!r} needs the argument {name!r}; it takes"
                        f" {self._signature()}",
                        job=self.name,
                        argument=name,
                    )
                continue
            problem = validator.problem(given[name])
            if problem:
                raise InvalidArguments(
                    f"argument {name!r} of job {self.name!r}: {problem}",
                    job=self.name,
                    argument=name,
                )

    def _by_name(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        assert self.arguments is not None
        names = list(self.arguments)
        if len(args) > len(names):
            raise InvalidArguments(
                f"job {self.name!r} takes {len(names)} arguments ({self._signature()}),"
                f" not {len(args)}",
                job=self.name,
            )
        given = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name in given:
                raise InvalidArguments(
                    f"job {self.name!r} got the argument {name!r} twice",
                    job=self.name,
                    argument=name,
                )
            if name not in self.arguments:
                raise InvalidArguments(
                    f"job {self.name!r} has no argument {name!r}; it takes {self._signature()}",
                    job=self.name,
                    argument=name,
                )
            given[name] = value
        return given

    def _signature(self) -> str:
        return ", ".join(self.arguments or ()) or "none"

    @cached_property
    def _validators(self) -> Mapping[str, Any]:
        from broker.schema import Validator

        assert self.arguments is not None
        return {name: Validator(schema or {}) for name, schema in self.arguments.items()}


def contract_of(topology: Topology, name: str) -> Contract:
    """Return the contract of a job of the topology.

    Raises:
        UnknownJob: the topology has no job of this name.
    """
    spec = topology.jobs.get(name)
    if spec is None:
        raise UnknownJob(name, topology.jobs)
    return Contract(
        name=name,
        exchange=spec.exchange,
        routing_key=spec.routing_key,
        task=spec.task,
        arguments=None if spec.arguments is None else MappingProxyType(dict(spec.arguments)),
        priority=DEFAULT_PRIORITY if spec.priority is None else spec.priority,
        deadline_s=None if spec.deadline is None else spec.deadline.total_seconds(),
        time_limit_s=None if spec.time_limit is None else spec.time_limit.total_seconds(),
        store=spec.store,
    )


def contracts_of(topology: Topology) -> dict[str, Contract]:
    """Return the contracts of all jobs of the topology by name."""
    return {name: contract_of(topology, name) for name in topology.jobs}
