"""Where a message goes: from exchange to exchange, into queues, and on when they let go; pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.topology.compile import compile_topology
from broker.topology.effective import Policies, Setting, find, settings_of, value_of
from broker.topology.matching import KNOWN_TYPES, takes
from broker.topology.model import Topology
from broker.topology.objects import (
    BINDING,
    EXCHANGE,
    QUEUE,
    Identity,
    Object,
    Objects,
)
from broker.topology.retry import Schedule, schedule_of

# Its type tells how messages get through; every virtual host has these without saying so.
_BUILT_IN_TYPES = {
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.headers": "headers",
    "amq.match": "headers",
    "amq.rabbitmq.trace": "topic",
    "amq.topic": "topic",
}

# What is bound: "queue" or "exchange", its name, the key, the arguments.
Bound = tuple[str, str, str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Step:
    """One way that the message takes.

    Attributes:
        source: the exchange that it leaves, "" for the default exchange.
        kind: "queue" or "exchange".
        destination: where it arrives.
        by: "binding", "alternate exchange" or "queue name".
        key: of the binding.
    """

    source: str
    kind: str
    destination: str
    by: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Letter:
    """What becomes of messages that a queue lets go.

    Attributes:
        exchange: where they are dead-lettered to.
        routing_keys: with which keys.
        goes: how on from there; None where the queue stands on its own way here.
    """

    exchange: str
    routing_keys: tuple[str, ...]
    goes: Routing | None


@dataclass(frozen=True, slots=True)
class Landing:
    """A queue that the message reaches.

    Attributes:
        queue, type: its name and type.
        schedule: when a failed message comes again; None where RabbitMQ counts no failures.
        ttl_ms: how long the message may wait there.
        full: what happens when the queue is full, "" where it has no limit.
        letter: where it goes afterwards; None where it is dropped.
    """

    queue: str
    type: str
    schedule: Schedule | None = None
    ttl_ms: int | None = None
    full: str = ""
    letter: Letter | None = None


@dataclass(frozen=True, slots=True)
class Routing:
    """Where a message goes.

    Attributes:
        exchange, routing_keys: how it was published.
        steps: each way, in the order of routing.
        landings: the queues, each once, by name.
        problems: what RabbitMQ refuses or drops on the way.
        unknown: what only RabbitMQ itself can tell.
    """

    exchange: str
    routing_keys: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    landings: tuple[Landing, ...] = ()
    problems: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def queues(self) -> tuple[str, ...]:
        """The names of the queues."""
        return tuple(each.queue for each in self.landings)

    @property
    def unroutable(self) -> bool:
        """Whether it certainly reaches no queue."""
        return not self.landings and not self.unknown

    def document(self) -> dict[str, Any]:
        """Return the routing as JSON."""
        return {
            "exchange": self.exchange,
            "routing_keys": list(self.routing_keys),
            "queues": [_landing_document(each) for each in self.landings],
            "steps": [
                {
                    "source": each.source,
                    "kind": each.kind,
                    "destination": each.destination,
                    "by": each.by,
                    "key": each.key,
                }
                for each in self.steps
            ],
            "unroutable": self.unroutable,
            "problems": list(self.problems),
            "unknown": list(self.unknown),
        }


@dataclass(slots=True)
class _Way:
    """What is found on the way of one message."""

    steps: list[Step] = field(default_factory=list)
    queues: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


class Router:
    """Routes messages through the exchanges, bindings and policies of a virtual host."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.policies = Policies(objects)
        self._bindings: dict[str, list[Bound]] = {}
        for identity in sorted(each for each in objects if each.kind == BINDING):
            source, kind, destination, key, text = identity.name
            arguments = {} if text == "{}" else json.loads(text)
            self._bindings.setdefault(source, []).append((kind, destination, key, arguments))

    @classmethod
    def of(cls, topology: Topology) -> Router:
        """Return the router of what a file makes, no RabbitMQ asked."""
        return cls(compile_topology(topology, secrets=False).objects)

    def route(
        self, exchange: str, routing_key: str, headers: Mapping[str, Any] | None = None
    ) -> Routing:
        """Say where a message goes.

        Args:
            exchange: where it is published, "" for the default exchange.
            routing_key: its routing key; lists under the headers CC and BCC add to it.
            headers: its headers.
        """
        headers = headers or {}
        copies = [
            each for name in ("CC", "BCC") for each in _texts(headers.get(name)) if each != ""
        ]
        there = self.exchange(exchange)
        if there is not None and there.attributes["internal"]:
            problem = f"exchange {exchange!r} is internal: RabbitMQ refuses what is published to it"
            return Routing(exchange, (routing_key, *copies), problems=(problem,))
        seen = {name: value for name, value in headers.items() if name != "BCC"}
        return self._routed(exchange, (routing_key, *copies), seen, ())

    def follow(self, exchange: str, routing_key: str, *, after: str) -> Routing:
        """Say where a message goes that a queue dead-letters."""
        return self._routed(exchange, (routing_key,), {}, (after,))

    def exchange(self, name: str) -> Object | None:
        """Return an exchange by its name, RabbitMQ's own included."""
        if name in _BUILT_IN_TYPES:
            type_, internal = _BUILT_IN_TYPES[name], name == "amq.rabbitmq.trace"
            attributes = {"type": type_, "internal": internal, "arguments": {}}
            return Object(Identity(EXCHANGE, (name,)), attributes)
        return find(self.objects, EXCHANGE, name)

    def settings(self, there: Object) -> dict[str, Setting]:
        """Return the settings in force on a queue or exchange."""
        return settings_of(there, self.policies)

    def bindings_of(self, exchange: str) -> Sequence[Bound]:
        """Return what is bound to an exchange."""
        return self._bindings.get(exchange, ())

    def _routed(
        self,
        exchange: str,
        keys: tuple[str, ...],
        headers: Mapping[str, Any],
        before: tuple[str, ...],
    ) -> Routing:
        way = _Way()
        if exchange == "":
            for key in dict.fromkeys(keys):
                if find(self.objects, QUEUE, key) is not None:
                    way.queues.add(key)
                    way.steps.append(Step("", "queue", key, "queue name"))
        else:
            self._walk(exchange, keys, headers, way)
        landings = tuple(self._landing(name, keys, headers, before) for name in sorted(way.queues))
        return Routing(
            exchange, keys, tuple(way.steps), landings, tuple(way.problems), tuple(way.unknown)
        )

    def _walk(
        self, start: str, keys: tuple[str, ...], headers: Mapping[str, Any], way: _Way
    ) -> None:
        waiting, seen = [start], {start}
        while waiting:
            name = waiting.pop(0)
            there = self.exchange(name)
            if there is None:
                way.problems.append(f"there is no exchange {name!r}")
                continue
            for step in [*self._from(there, keys, headers, way)]:
                way.steps.append(step)
                if step.kind == "queue":
                    way.queues.add(step.destination)
                elif step.destination not in seen:
                    seen.add(step.destination)
                    waiting.append(step.destination)

    def _from(
        self, there: Object, keys: tuple[str, ...], headers: Mapping[str, Any], way: _Way
    ) -> Iterator[Step]:
        """Yield the ways out of an exchange: its bindings or, where none takes, its alternate."""
        name, type_ = there.identity.name[0], there.attributes["type"]
        bound = self.bindings_of(name)
        if type_ not in KNOWN_TYPES:
            ends = ", ".join(f"{kind} {end!r}" for kind, end, _, _ in bound) or "nothing"
            way.unknown.append(
                f"exchange {name!r} has the plugin's type {type_}: which of its bindings"
                f" (to {ends}) takes a message, only RabbitMQ can tell"
            )
            return
        taken = False
        for kind, destination, binding_key, arguments in bound:
            if any(
                takes(
                    type_,
                    binding_key=binding_key,
                    arguments=arguments,
                    routing_key=key,
                    headers=headers,
                )
                for key in keys
            ):
                taken = True
                yield Step(name, kind, destination, "binding", binding_key)
        alternate = value_of(self.settings(there), "alternate-exchange")
        if not taken and alternate is not None:
            yield Step(name, "exchange", str(alternate), "alternate exchange")

    def _landing(
        self,
        name: str,
        keys: tuple[str, ...],
        headers: Mapping[str, Any],
        before: tuple[str, ...],
    ) -> Landing:
        there = find(self.objects, QUEUE, name)
        if there is None:
            return Landing(name, "unknown")
        settings, type_ = self.settings(there), str(there.attributes["type"])
        limited = {"max-length", "max-length-bytes"} & settings.keys()
        exchange = value_of(settings, "dead-letter-exchange")
        letter = None
        if exchange is not None and type_ != "stream":
            key = value_of(settings, "dead-letter-routing-key")
            onward, left = keys, dict(headers)
            if key is not None:
                # A key of the queue's own takes the place of all of the message's.
                onward = (str(key),)
                left.pop("CC", None)
            circle = name in before
            goes = None if circle else self._routed(exchange, onward, left, (*before, name))
            letter = Letter(str(exchange), onward, goes)
        ttl = value_of(settings, "message-ttl")
        return Landing(
            name,
            type_,
            schedule_of(settings) if type_ == "quorum" else None,
            ttl if isinstance(ttl, int) else None,
            str(value_of(settings, "overflow", "drop-head")) if limited else "",
            letter,
        )


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _landing_document(landing: Landing) -> dict[str, Any]:
    schedule, letter = landing.schedule, landing.letter
    return {
        "queue": landing.queue,
        "type": landing.type,
        "redelivery": None
        if schedule is None
        else {
            "type": schedule.type,
            "delay_ms": schedule.delay_ms,
            "longest_ms": schedule.longest_ms,
            "limit": schedule.limit,
            "together_ms": schedule.total_ms,
        },
        "message_ttl_ms": landing.ttl_ms,
        "when_full": landing.full or None,
        "dead_letter": None
        if letter is None
        else {
            "exchange": letter.exchange,
            "routing_keys": list(letter.routing_keys),
            "circle": letter.goes is None,
            "goes": None if letter.goes is None else letter.goes.document(),
        },
    }
