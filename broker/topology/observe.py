"""What RabbitMQ has, read once with a constant number of requests, in the plan's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from broker.errors import AccessRefused, BrokerUnavailable
from broker.management import Management
from broker.topology.objects import (
    BINDING,
    EXCHANGE,
    POLICY,
    QUEUE,
    VHOST,
    Identity,
    Object,
    Objects,
    Observed,
    binding_identity,
    by_identity,
)
from broker.topology.settings import BUILT_IN_EXCHANGES

_KINDS = (EXCHANGE, POLICY, QUEUE, BINDING)


def observe(management: Management, vhost: str, *, requires: str | None = None) -> Observed:
    """Read a virtual host: six requests, however much is in it.

    Args:
        management: the management API.
        vhost: name of the virtual host, which need not exist.
        requires: the least version of RabbitMQ that will do.

    Raises:
        UnsupportedBroker: RabbitMQ is too old.
        Unreachable, AccessRefused, BrokerUnavailable: see `broker.errors`.
    """
    version = management.require(requires)
    objects = dict(read_kind(management, vhost, VHOST))
    effective: dict[str, Mapping[str, Any]] = {}
    if objects:
        for kind in _KINDS:
            if kind == QUEUE:
                answers = _queue_answers(management, vhost)
                objects |= by_identity(map(_queue, answers))
                effective = _effective(answers)
            else:
                objects |= read_kind(management, vhost, kind)
    return Observed(version, vhost, objects, effective)


def read_kind(management: Management, vhost: str, kind: str) -> Objects:
    """Read all objects of one kind, with one request (bindings: at most two)."""
    read = {
        VHOST: _vhosts,
        EXCHANGE: _exchanges,
        POLICY: _policies,
        QUEUE: _queues,
        BINDING: _bindings,
    }[kind]
    return by_identity(read(management, vhost))


def read_effective(management: Management, vhost: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the policy settings in force on each queue, by its name."""
    return _effective(_queue_answers(management, vhost))


def _vhosts(management: Management, vhost: str) -> Iterator[Object]:
    # The list, since reading a single virtual host takes an administrator.
    for answer in management.get("vhosts"):
        if answer["name"] == vhost:
            # What has never been set is "undefined" or missing, and means classic queues.
            default = answer.get("default_queue_type")
            yield Object(
                Identity(VHOST, (vhost,)),
                {
                    "default_queue_type": "classic" if default in (None, "undefined") else default,
                    "description": answer.get("description") or "",
                    "tags": answer.get("tags") or [],
                },
            )


def _exchanges(management: Management, vhost: str) -> Iterator[Object]:
    for answer in management.get("exchanges", vhost):
        # The default exchange has no name.
        if answer["name"] and answer["name"] not in BUILT_IN_EXCHANGES:
            yield Object(
                Identity(EXCHANGE, (answer["name"],)),
                {
                    "type": answer["type"],
                    "durable": answer["durable"],
                    "auto_delete": answer["auto_delete"],
                    "internal": answer["internal"],
                    "arguments": answer["arguments"],
                },
            )


def _policies(management: Management, vhost: str) -> Iterator[Object]:
    for answer in management.get("policies", vhost):
        attributes = {key: answer[key] for key in ("apply-to", "pattern", "priority", "definition")}
        yield Object(Identity(POLICY, (answer["name"],)), attributes)


def _queues(management: Management, vhost: str) -> Iterator[Object]:
    return map(_queue, _queue_answers(management, vhost))


def _queue_answers(management: Management, vhost: str) -> list[dict[str, Any]]:
    # With statistics the policies in force would lag by seconds.
    answers: list[dict[str, Any]] = management.get("queues", vhost, disable_stats=True)
    return answers


def _queue(answer: Mapping[str, Any]) -> Object:
    # x-queue-type is stored whether it was given or not; the type says the same.
    arguments = {key: value for key, value in answer["arguments"].items() if key != "x-queue-type"}
    attributes = {
        "type": answer.get("type") or answer["arguments"].get("x-queue-type", "classic"),
        "durable": answer["durable"],
        "auto_delete": answer["auto_delete"],
        "arguments": arguments,
    }
    if answer.get("exclusive"):
        attributes["exclusive"] = True
    return Object(Identity(QUEUE, (answer["name"],)), attributes)


def _effective(answers: list[dict[str, Any]]) -> dict[str, Mapping[str, Any]]:
    # An empty definition comes as an empty list.
    return {answer["name"]: answer.get("effective_policy_definition") or {} for answer in answers}


def _bindings(management: Management, vhost: str) -> Iterator[Object]:
    for answer in _binding_answers(management, vhost):
        # Every queue is bound to the default exchange; nobody can change that.
        if answer["source"]:
            identity = binding_identity(
                source=answer["source"],
                kind=answer["destination_type"],
                destination=answer["destination"],
                routing_key=answer["routing_key"],
                arguments=answer["arguments"],
            )
            yield Object(identity, {})


def _binding_answers(management: Management, vhost: str) -> list[dict[str, Any]]:
    # RabbitMQ fails here on a key with "~" and arguments, but not in the definitions, which
    # only an administrator may read.
    try:
        answers: list[dict[str, Any]] = management.get("bindings", vhost)
    except BrokerUnavailable as exc:
        if type(exc) is not BrokerUnavailable:
            raise
        try:
            answers = management.get("definitions", vhost)["bindings"]
        except AccessRefused:
            raise AccessRefused(
                f"RabbitMQ cannot list the bindings of virtual host {vhost!r} ({exc}): probably"
                " one has ~ in its routing key and arguments; an administrator can still read"
                " them, so run this as one"
            ) from exc
    return answers
