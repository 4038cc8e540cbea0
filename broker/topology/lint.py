"""What is wrong with a topology although each value alone is right; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from broker.errors import did_you_mean
from broker.schema import schema_problem
from broker.topology.model import Queue, Topology
from broker.topology.settings import (
    BUILT_IN_EXCHANGES,
    CLASSIC,
    GROUPS,
    QUORUM,
    SETTINGS,
    STREAM,
    stream_age,
)

_STRUCTURAL = {"x-queue-type": "type"} | {
    setting.key: name for name, setting in SETTINGS.items() if setting.where == "argument"
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that lint has to say.

    Attributes:
        path: where it stands in the file's data; the last part may name a key.
        rule: the name of the rule.
        text: one sentence.
        level: an error keeps the topology from being loaded.
        at_key: whether the culprit is the key rather than its value.
    """

    path: tuple[str | int, ...]
    rule: str
    text: str
    level: Literal["error", "warning"] = "error"
    at_key: bool = False


def check(topology: Topology) -> list[Finding]:
    """Return the findings about a topology, in the order of the file."""
    return [
        *_exchanges(topology),
        *_queues(topology),
        *_jobs(topology),
        *_workers(topology),
    ]


def _exchanges(topology: Topology) -> Iterator[Finding]:
    for name, exchange in topology.exchanges.items():
        path = ("exchanges", name)
        if exchange.alternate_exchange is not None:
            yield from _exchange_exists(
                topology, exchange.alternate_exchange, (*path, "alternate_exchange")
            )
        if "alternate-exchange" in exchange.arguments:
            yield Finding(
                (*path, "arguments", "alternate-exchange"),
                "argument-with-key",
                "write alternate_exchange beside `type`; as an argument it could never change",
                at_key=True,
            )
        for index, binding in enumerate(exchange.bindings):
            here = (*path, "bindings", index)
            yield from _exchange_exists(topology, binding.exchange, (*here, "exchange"))
        yield from _repeated(exchange.bindings, path)


def _queues(topology: Topology) -> Iterator[Finding]:
    for name, queue in topology.queues.items():
        path = ("queues", name)
        for index, binding in enumerate(queue.bindings):
            here = (*path, "bindings", index)
            yield from _exchange_exists(topology, binding.exchange, (*here, "exchange"))
        yield from _repeated(queue.bindings, path)
        if queue.dead_letter is not None:
            yield from _exchange_exists(
                topology, queue.dead_letter.exchange, (*path, "dead_letter", "exchange")
            )
        yield from _settings(queue, path)
        yield from _dead_lettering(queue, path)
        for argument in queue.arguments:
            if argument in _STRUCTURAL:
                yield Finding(
                    (*path, "arguments", argument),
                    "argument-with-key",
                    f"write {_STRUCTURAL[argument]} beside the queue's other settings instead of"
                    f" the argument {argument}",
                    at_key=True,
                )


def _settings(queue: Queue, path: tuple[str, ...]) -> Iterator[Finding]:
    types = {name: setting.types for name, setting in SETTINGS.items()} | dict(GROUPS)
    for name, taken_by in types.items():
        if queue.type not in taken_by and getattr(queue, name) not in (None, False):
            yield Finding(
                (*path, name),
                "setting-for-type",
                f"a {queue.type} queue takes no {name}, only {_either(taken_by)} queues do",
                at_key=True,
            )
    if queue.auto_delete and queue.type != CLASSIC:
        yield Finding(
            (*path, "auto_delete"),
            "setting-for-type",
            f"a {queue.type} queue cannot be auto_delete, only classic queues can",
            at_key=True,
        )
    if not queue.durable:
        yield Finding(
            (*path, "durable"),
            "transient-queue",
            "RabbitMQ 4.3 denies queues that are neither durable nor exclusive; leave it out",
        )
    if queue.overflow == "reject-publish-dlx" and queue.type == QUORUM:
        yield Finding(
            (*path, "overflow"),
            "setting-for-type",
            "a quorum queue takes overflow drop-head or reject-publish, not reject-publish-dlx",
        )
    if queue.retry is not None:
        yield from _retry(queue, path)
    if queue.type == STREAM and queue.max_age is not None:
        try:
            stream_age(queue.max_age)
        except ValueError as exc:
            yield Finding((*path, "max_age"), "duration", str(exc))


def _retry(queue: Queue, path: tuple[str, ...]) -> Iterator[Finding]:
    retry = queue.retry
    assert retry is not None
    if retry.max_delay is not None and retry.max_delay < retry.delay:
        yield Finding(
            (*path, "retry", "max_delay"), "retry-order", "max_delay is shorter than delay"
        )
    if retry.limit is not None and queue.delivery_limit is not None:
        yield Finding(
            (*path, "delivery_limit"),
            "limit-twice",
            "delivery_limit and retry.limit are the same setting; keep one",
            at_key=True,
        )


def _dead_lettering(queue: Queue, path: tuple[str, ...]) -> Iterator[Finding]:
    letter = queue.dead_letter
    if letter is None:
        return
    if queue.type == CLASSIC and letter.strategy == "at-least-once":
        yield Finding(
            (*path, "dead_letter", "strategy"),
            "dead-letter-strategy",
            "only quorum queues dead-letter at least once",
        )
    loses = queue.overflow not in (None, "reject-publish")
    if queue.type == QUORUM and loses and letter.strategy != "at-most-once":
        yield Finding(
            (*path, "overflow"),
            "dead-letter-strategy",
            f"overflow {queue.overflow} rules out dead-lettering at least once: write overflow:"
            " reject-publish, or dead_letter: {strategy: at-most-once} if messages may be lost",
        )


def _jobs(topology: Topology) -> Iterator[Finding]:
    for name, job in topology.jobs.items():
        yield from _exchange_exists(topology, job.exchange, ("jobs", name, "exchange"))
        for argument, schema in (job.arguments or {}).items():
            problem = schema_problem(schema)
            if problem:
                yield Finding(("jobs", name, "arguments", argument), "json-schema", problem)


def _workers(topology: Topology) -> Iterator[Finding]:
    for name, worker in topology.workers.items():
        for index, queue in enumerate(worker.queues):
            if queue not in topology.queues:
                yield Finding(
                    ("workers", name, "queues", index),
                    "unknown-queue",
                    f"no queue is named {queue!r}{did_you_mean(queue, topology.queues)}",
                )


def _exchange_exists(
    topology: Topology, exchange: str, path: tuple[str | int, ...]
) -> Iterator[Finding]:
    if exchange not in topology.exchanges and exchange not in BUILT_IN_EXCHANGES:
        known = [*topology.exchanges, *BUILT_IN_EXCHANGES]
        yield Finding(
            path,
            "unknown-exchange",
            f"no exchange is named {exchange!r}{did_you_mean(exchange, known)}",
        )


def _repeated(bindings: Iterable[object], path: tuple[str, ...]) -> Iterator[Finding]:
    seen: list[object] = []
    for index, binding in enumerate(bindings):
        if binding in seen:
            yield Finding((*path, "bindings", index), "repeated", "this binding stands here twice")
        seen.append(binding)


def _either(types: Iterable[str]) -> str:
    return " and ".join(sorted(types))
