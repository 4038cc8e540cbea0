"""Rules about queues: what their type takes, how they retry, where their messages end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from broker.errors import did_you_mean
from broker.topology.effective import value_of
from broker.topology.lint.finding import Finding, finding
from broker.topology.lint.view import View
from broker.topology.model import Queue, Topology
from broker.topology.objects import Object
from broker.topology.retry import schedule_of
from broker.topology.route import Routing
from broker.topology.settings import (
    CLASSIC,
    GROUPS,
    MASTER_LOCATOR,
    MIRRORING,
    QUORUM,
    SETTINGS,
    STREAM,
    stream_age,
)
from broker.topology.source import DataPath

_STRUCTURAL = {
    setting.key: name for name, setting in SETTINGS.items() if setting.where == "argument"
}
# What RabbitMQ 4.3 lists for each type; anything else it stores and never looks at.
_COMMON = {"x-queue-type", "x-max-length-bytes", "x-queue-leader-locator"}
_WORK = {
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-expires",
    "x-max-length",
    "x-message-ttl",
    "x-overflow",
    "x-single-active-consumer",
}
ARGUMENTS: Mapping[str, frozenset[str]] = {
    QUORUM: frozenset(
        {"x-dead-letter-strategy", "x-quorum-initial-group-size", "x-delivery-limit", *_COMMON}
        | {"x-consumer-timeout", "x-consumer-disconnected-timeout", "x-delayed-retry-type", *_WORK}
        | {"x-delayed-retry-min", "x-delayed-retry-max", "x-max-in-memory-length"}
        | {"x-max-in-memory-bytes"}
    ),
    CLASSIC: frozenset(
        {"x-max-priority", "x-queue-mode", "x-queue-version", "x-queue-master-locator"}
        | _COMMON
        | _WORK
    ),
    STREAM: frozenset(
        {"x-max-age", "x-stream-max-segment-size-bytes", "x-stream-filter-size-bytes"}
        | {"x-initial-cluster-size", *_COMMON}
    ),
}
_KNOWN = frozenset().union(*ARGUMENTS.values())
_COUNTS = {
    "delivery-limit",
    "delayed-retry-min",
    "delayed-retry-max",
    "consumer-timeout",
    "consumer-disconnected-timeout",
    "quorum-initial-group-size",
    "target-group-size",
}
_WORDS: Mapping[str, tuple[str, ...]] = {
    "delayed-retry-type": ("disabled", "failed", "returned", "all"),
    "dead-letter-strategy": ("at-most-once", "at-least-once"),
    "overflow": ("drop-head", "reject-publish", "reject-publish-dlx"),
    "queue-leader-locator": ("client-local", "balanced"),
}


_ON_DISK = "quorum queues keep their messages on disk"
_WITHOUT_EFFECT = {
    "queue-mode": "every classic queue is lazy",
    "max-in-memory-length": _ON_DISK,
    "max-in-memory-bytes": _ON_DISK,
}


def check_values(topology: Topology) -> Iterator[Finding]:
    """Yield what is wrong with single queues."""
    for name, queue in topology.queues.items():
        path: DataPath = ("queues", name)
        yield from _settings(queue, path)
        yield from _arguments(queue, path)
        yield from _dead_lettering(queue, path)
    for index, name in enumerate((topology.delays and topology.delays.queues) or ()):
        if name not in topology.queues:
            text = f"no queue is named {name!r}{did_you_mean(name, topology.queues)}"
            yield finding(("delays", "queues", index), "unknown-queue", text)


def removed(key: str) -> str:
    """Return why RabbitMQ does not take an argument or policy key any more, or ""."""
    if key in MIRRORING:
        return f"RabbitMQ 4 refuses {key}, since it mirrors no classic queues; take quorum queues"
    if key == MASTER_LOCATOR:
        return f"RabbitMQ 4.3 denies {key}; write queue-leader-locator: balanced or client-local"
    return ""


def ignored(key: str, value: Any) -> str:
    """Return why RabbitMQ takes but ignores the value of an argument or policy key, or ""."""
    if key in _WITHOUT_EFFECT:
        return f"RabbitMQ 4 takes {key} and ignores it: {_WITHOUT_EFFECT[key]}"
    if key in _WORDS and value not in _WORDS[key]:
        return f"RabbitMQ takes {value!r} and ignores it; it knows {', '.join(_WORDS[key])}"
    if key in _COUNTS and (not isinstance(value, int) or isinstance(value, bool)):
        return f"RabbitMQ takes {value!r} and ignores it; it counts in whole numbers"
    return ""


def _settings(queue: Queue, path: DataPath) -> Iterator[Finding]:
    types = {name: setting.types for name, setting in SETTINGS.items()} | dict(GROUPS)
    for name, taken_by in types.items():
        if queue.type in taken_by or getattr(queue, name) in (None, False):
            continue
        if name == "max_priority" and queue.type == QUORUM:
            text = "a quorum queue always has the priorities 0-31; leave max_priority out"
            yield finding((*path, name), "quorum-max-priority", text, at_key=True)
        else:
            text = f"a {queue.type} queue takes no {name}, only {_either(taken_by)} queues do"
            yield finding((*path, name), "setting-for-type", text, at_key=True)
    if queue.auto_delete and queue.type != CLASSIC:
        text = f"a {queue.type} queue cannot be auto_delete, only classic queues can"
        yield finding((*path, "auto_delete"), "setting-for-type", text, at_key=True)
    if not queue.durable:
        yield finding(
            (*path, "durable"),
            "transient-queue",
            "RabbitMQ 4.3 denies queues that are neither durable nor exclusive; leave it out",
        )
    if queue.overflow == "reject-publish-dlx" and queue.type == QUORUM:
        yield finding(
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
            yield finding((*path, "max_age"), "duration", str(exc))


def _retry(queue: Queue, path: DataPath) -> Iterator[Finding]:
    retry = queue.retry
    assert retry is not None
    if retry.max_delay is not None and retry.max_delay < retry.delay:
        text = "max_delay is shorter than delay"
        yield finding((*path, "retry", "max_delay"), "retry-order", text)
    if retry.limit is not None and queue.delivery_limit is not None:
        text = "delivery_limit and retry.limit are the same setting; keep one"
        yield finding((*path, "delivery_limit"), "limit-twice", text, at_key=True)
    if retry.max_delay is None:
        yield finding(
            (*path, "retry", "delay"),
            "constant-delay",
            "without max_delay RabbitMQ waits equally long before every redelivery; max_delay"
            " lets the n-th wait n times as long",
        )


def _arguments(queue: Queue, path: DataPath) -> Iterator[Finding]:
    for argument, value in queue.arguments.items():
        here = (*path, "arguments", argument)
        if argument == "x-max-priority" and queue.type == QUORUM:
            text = "a quorum queue always has the priorities 0-31, RabbitMQ refuses x-max-priority"
            yield finding(here, "quorum-max-priority", text, at_key=True)
        elif argument == "x-queue-type":
            # Compared for itself: as an argument it would never be as it should.
            text = "write type beside the queue's other settings"
            yield finding(here, "argument-for-type", text, at_key=True)
        elif argument in _STRUCTURAL:
            text = (
                f"write {_STRUCTURAL[argument]} beside the queue's other settings instead of the"
                f" argument {argument}"
            )
            yield finding(here, "argument-with-key", text, at_key=True)
        elif argument in _KNOWN and argument not in ARGUMENTS[queue.type]:
            takers = [type_ for type_, known in ARGUMENTS.items() if argument in known]
            text = f"a {queue.type} queue takes no {argument}, only {_either(takers)} queues do"
            yield finding(here, "argument-for-type", text, at_key=True)
        elif argument not in _KNOWN:
            text = f"RabbitMQ stores {argument} and never looks at it"
            yield finding(here, "unknown-argument", text, at_key=True)
        elif why := removed(argument.removeprefix("x-")):
            yield finding(here, "removed-key", why, at_key=True)
        elif why := ignored(argument.removeprefix("x-"), value):
            yield finding(here, "ignored-value", why)
        elif argument == "x-overflow" and queue.type == QUORUM and value == "reject-publish-dlx":
            text = "a quorum queue takes reject-publish-dlx for drop-head, and drops messages"
            yield finding(here, "ignored-value", text)


def _dead_lettering(queue: Queue, path: DataPath) -> Iterator[Finding]:
    letter = queue.dead_letter
    if letter is None:
        return
    if queue.type == CLASSIC and letter.strategy == "at-least-once":
        yield finding(
            (*path, "dead_letter", "strategy"),
            "dead-letter-strategy",
            "only quorum queues dead-letter at least once",
        )
    loses = queue.overflow not in (None, "reject-publish", "reject-publish-dlx")
    if queue.type == QUORUM and loses and letter.strategy != "at-most-once":
        yield finding(
            (*path, "overflow"),
            "dead-letter-strategy",
            f"overflow {queue.overflow} rules out dead-lettering at least once: write overflow:"
            " reject-publish, or dead_letter: {strategy: at-most-once} if messages may be lost",
        )


# -- what takes the whole file --------------------------------------------------------


def check(view: View) -> Iterator[Finding]:
    """Yield what is wrong with queues as they stand among exchanges, policies and workers."""
    for name, queue in view.topology.queues.items():
        there, path = view.queue(name), ("queues", name)
        if queue.type == STREAM:
            continue
        yield from _strategy(view, there, path)
        yield from _end(view, there, path)
        if name in view.workers_of:
            yield from _consumed(view, there, path)


def _strategy(view: View, there: Object, path: DataPath) -> Iterator[Finding]:
    # Where arguments or policies of people say it; what the keys say is checked above.
    settings = view.settings(there)
    if (
        value_of(settings, "dead-letter-strategy") == "at-least-once"
        and value_of(settings, "overflow") != "reject-publish"
    ):
        yield finding(
            path,
            "dead-letter-strategy",
            "RabbitMQ falls back to dead-lettering at most once, since overflow is not"
            " reject-publish",
            at_key=True,
        )


def _end(view: View, there: Object, path: DataPath) -> Iterator[Finding]:
    name, settings = there.identity.name[0], view.settings(there)
    exchange = value_of(settings, "dead-letter-exchange")
    if exchange is None:
        return
    where: DataPath = (*path, "dead_letter") if view.topology.queues[name].dead_letter else path
    if exchange != "" and view.router.exchange(str(exchange)) is None:
        text = f"there is no exchange {exchange!r} in the file: dead-lettered messages are lost"
        yield finding(where, "dead-letter-nowhere", text, at_key=True)
        return
    jobs = view.jobs_in.get(name, [])
    sent = [(each, view.topology.jobs[each].routing_key) for each in jobs]
    own = value_of(settings, "dead-letter-routing-key")
    if own is not None or exchange == "":
        sent = [("", str(own if own is not None else ""))]
    for job, key in sent or _keys_into(view, name):
        routing = view.router.follow(str(exchange), key, after=name)
        about = f"job {job!r}, " if job else ""
        if routing.unroutable:
            text = (
                f"what it dead-letters ({about}key {key!r}) reaches no queue from exchange"
                f" {exchange!r}"
            )
            yield finding(where, "dead-letter-nowhere", text, at_key=True)
            return
        if circle := _circle(routing, name):
            text = (
                f"dead-lettered messages ({about}key {key!r}) come round again:"
                f" {' → '.join((name, *circle))}; RabbitMQ drops those that expired on the way"
            )
            yield finding(where, "dead-letter-circle", text, at_key=True)
            return


def _keys_into(view: View, queue: str) -> list[tuple[str, str]]:
    """Return keys with which messages come in, as far as bindings tell them."""
    keys = {binding.routing_key for binding in view.topology.queues[queue].bindings}
    return [("", key) for key in sorted(keys) if not {"*", "#"} & set(key.split("."))]


def _circle(routing: Routing, start: str) -> tuple[str, ...]:
    for landing in routing.landings:
        if landing.queue == start:
            return (start,)
        if landing.letter and landing.letter.goes:
            further = _circle(landing.letter.goes, start)
            if further:
                return (landing.queue, *further)
    return ()


def _consumed(view: View, there: Object, path: DataPath) -> Iterator[Finding]:
    settings, name = view.settings(there), there.identity.name[0]
    worker = view.workers_of[name][0]
    if "dead-letter-exchange" not in settings:
        yield finding(
            path,
            "no-dead-letter",
            f"worker {worker!r} consumes it and nothing takes what fails: write dead_letter:"
            " {exchange: …}",
            at_key=True,
        )
    if there.attributes["type"] == QUORUM and schedule_of(settings).limit is None:
        yield finding(
            path,
            "endless-redelivery",
            f"worker {worker!r} consumes it without a delivery limit: a job that kills its"
            " process comes again for ever",
            at_key=True,
        )
    elif there.attributes["type"] == CLASSIC:
        yield finding(
            path,
            "endless-redelivery",
            f"worker {worker!r} consumes it, and a classic queue counts no deliveries: a job that"
            " kills its process comes again for ever; take a quorum queue",
            at_key=True,
        )


def _either(types: Iterable[str]) -> str:
    return " and ".join(sorted(types))
