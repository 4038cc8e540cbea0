"""Which rights the users of a topology must have, and which they must not; pure.

For a user with a role this follows from what the file says about jobs, workers and queues, and
not from the expressions that the role compiles to: it is those that are to be proved. For a user
with permissions written out it is what they match.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

from broker.reply_queue import PREFIX
from broker.topology.access import User
from broker.topology.cancellations import cancellations_of
from broker.topology.model import Topology
from broker.topology.token import token_of

Verb = Literal["configure", "write", "read", "reply", "management", "policies"]
DEFAULT_EXCHANGE = ""
# Nothing has this name; only one who may configure everything may declare it.
STRANGER = "rabbitry-verify-rights-stranger"
# Stands for the reply queue of any caller, whose names nobody can guess.
REPLY_QUEUE = PREFIX + "rabbitry-verify-rights"
_DEFAULT_EXCHANGE_IN_RIGHTS = "amq.default"
# https://www.rabbitmq.com/docs/management#permissions
_POLICIES = frozenset({"policymaker", "administrator"})
_MANAGEMENT = _POLICIES | {"management", "monitoring"}
_TAGS: Mapping[str, tuple[str, ...]] = {
    "producer": (),
    "worker": (),
    "caller": (),
    "scheduler": (),
    "monitor": ("monitoring",),
    "provisioner": ("policymaker",),
}


@dataclass(frozen=True, slots=True, order=True)
class Expectation:
    """Something that a user must be able to do, or must not.

    Attributes:
        allowed: whether it must be able to.
        verb: configure, write, read a name; reply: get direct replies; management: read the
            management API; policies: read its parameters, as who sets policies may.
        name: of the exchange or queue; "" for the default exchange.
        routing_key: with which it writes.
    """

    allowed: bool
    verb: Verb
    name: str = ""
    routing_key: str = ""

    def __str__(self) -> str:
        shown = repr(self.name) if self.name or self.verb != "write" else "the default exchange"
        shown = "a reply queue" if self.name == REPLY_QUEUE else shown
        words = {
            "configure": f"declare {shown}",
            "write": f"publish to {shown}",
            "read": f"consume from {shown}",
            "reply": "receive direct replies",
            "management": "read the management API",
            "policies": "read policies and parameters",
        }[self.verb]
        return f"{words} with key {self.routing_key!r}" if self.routing_key else words


def expectations(topology: Topology, user: User) -> list[Expectation]:
    """Return what a user must be able to do and what not, what it must first."""
    found = _by_role(topology, user) if user.role else _by_permissions(topology, user)
    unique = dict.fromkeys(found)
    must = {(each.verb, each.name) for each in unique if each.allowed}
    kept = [
        each
        for each in unique
        if each.allowed or each.routing_key or (each.verb, each.name) not in must
    ]
    return sorted(kept, key=lambda each: (not each.allowed, each))


def _by_role(topology: Topology, user: User) -> Iterator[Expectation]:
    yield from _must(topology, user)
    for name in (*topology.exchanges, *topology.queues, STRANGER):
        if not _remote_controlled(topology, user):
            yield Expectation(False, "configure", name)
    for name in (*topology.exchanges, DEFAULT_EXCHANGE):
        yield Expectation(False, "write", name)
    for name in topology.queues:
        yield Expectation(False, "read", name)
    # Replies are their caller's alone; a provisioner may have to clean up after one.
    if user.role != "provisioner":
        yield Expectation(False, "configure", REPLY_QUEUE)
        yield Expectation(False, "read", REPLY_QUEUE)
    yield from _tags(user)


def _tags(user: User) -> Iterator[Expectation]:
    """Yield what the tags come to; of a user without either role or tags they may be any."""
    tags = user.tags if user.tags is not None else _TAGS.get(user.role or "")
    if tags is not None:
        yield Expectation(not _MANAGEMENT.isdisjoint(tags), "management")
        yield Expectation(not _POLICIES.isdisjoint(tags), "policies")


def _must(topology: Topology, user: User) -> Iterator[Expectation]:
    cancelled = cancellations_of(topology)
    match user.role:
        case "producer" | "caller" | "scheduler":
            for name, job in topology.jobs.items():
                if user.jobs is None or name in user.jobs:
                    yield Expectation(True, "write", job.exchange, job.routing_key)
            if user.role == "caller":
                yield Expectation(True, "reply")
                yield Expectation(True, "configure", REPLY_QUEUE)
                yield Expectation(True, "read", REPLY_QUEUE)
            publishes = user.role != "scheduler" and (user.jobs is None or user.jobs)
            if publishes and topology.jobs and cancelled is not None:
                yield Expectation(True, "write", cancelled.exchange)
            token = token_of(topology)
            if user.role == "scheduler" and token is not None:
                yield Expectation(True, "write", token.exchange)
                yield Expectation(True, "read", token.queue)
                yield Expectation(True, "read", token.state)
        case "worker":
            for name, worker in topology.workers.items():
                if user.workers is None or name in user.workers:
                    for queue in worker.queues:
                        yield from _must_of_queue(topology, queue)
            if cancelled is not None:
                yield Expectation(True, "read", cancelled.queue)
            # A reply goes to the queue that its caller names: by the default exchange.
            yield Expectation(True, "write", DEFAULT_EXCHANGE)
        case "provisioner":
            for name in (*topology.exchanges, *topology.queues):
                yield Expectation(True, "configure", name)
            # Whoever binds writes to the destination and reads the source.
            for name in topology.exchanges:
                yield Expectation(True, "write", name)
            for name in topology.queues:
                yield Expectation(True, "read", name)
        case "monitor" | None:
            return


def _must_of_queue(topology: Topology, name: str) -> Iterator[Expectation]:
    yield Expectation(True, "read", name)
    queue = topology.queues.get(name)
    if queue is not None and queue.dead_letter is not None:
        yield Expectation(True, "write", queue.dead_letter.exchange)


def _remote_controlled(topology: Topology, user: User) -> bool:
    """Say whether a worker has rights on a few of Celery's own names, which match few others."""
    return user.role == "worker" and any(
        worker.remote_control
        for name, worker in topology.workers.items()
        if user.workers is None or name in user.workers
    )


def _by_permissions(topology: Topology, user: User) -> Iterator[Expectation]:
    permissions = user.permissions
    if permissions is None:
        return
    for name in (*topology.exchanges, *topology.queues, STRANGER):
        yield from _matching("configure", permissions.configure, name, name)
    for name in topology.exchanges:
        for each in _matching("write", permissions.write, name, name):
            yield from _with_keys(topology, user, each)
    in_rights = _DEFAULT_EXCHANGE_IN_RIGHTS
    yield from _matching("write", permissions.write, in_rights, DEFAULT_EXCHANGE)
    for name in topology.queues:
        yield from _matching("read", permissions.read, name, name)
    yield from _tags(user)


def _with_keys(topology: Topology, user: User, wanted: Expectation) -> Iterator[Expectation]:
    """Yield what a topic permission leaves of the right to write to an exchange.

    It asks for a key that it lets through: those are tried that the file names.
    """
    name = wanted.name
    topic = user.topic_permissions.get(name) if user.topic_permissions else None
    if not wanted.allowed or topic is None or topology.exchanges[name].type != "topic":
        yield wanted
        return
    for key in sorted({*_keys(topology, name), STRANGER}):
        for each in _matching("write", topic.write, key, name):
            yield replace(each, routing_key=key)


def _keys(topology: Topology, exchange: str) -> Iterator[str]:
    """Yield the routing keys that the file names for an exchange."""
    for job in topology.jobs.values():
        if job.exchange == exchange and job.routing_key:
            yield job.routing_key
    bound = [each.bindings for each in topology.queues.values()]
    bound += [each.bindings for each in topology.exchanges.values()]
    for binding in chain.from_iterable(bound):
        key = binding.routing_key
        if binding.exchange == exchange and key and not {"*", "#"} & set(key.split(".")):
            yield key


def _matching(verb: Verb, expression: str, text: str, name: str) -> Iterator[Expectation]:
    try:
        # Nothing matches nothing: RabbitMQ reads an empty expression as ^$.
        allowed = bool(expression) and re.search(expression, text) is not None
    except re.error:
        # Erlang's dialect knows more than Python's; what it matches stays unknown.
        return
    yield Expectation(allowed, verb, name)
