"""What RabbitMQ has, read once with a constant number of requests, in the plan's words."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from broker.errors import AccessRefused, BrokerUnavailable
from broker.management import Management
from broker.topology.effective import Policies, merged
from broker.topology.objects import (
    BINDING,
    EXCHANGE,
    GLOBAL_PARAMETER,
    OPERATOR_POLICY,
    OUTSIDE,
    PARAMETER,
    PERMISSION,
    POLICY,
    QUEUE,
    TOPIC_PERMISSION,
    USER,
    USER_LIMIT,
    VHOST,
    VHOST_LIMIT,
    Identity,
    Object,
    Objects,
    Observed,
    binding_identity,
    by_identity,
)
from broker.topology.settings import BUILT_IN_EXCHANGES

# Read in any case.
_KINDS = (VHOST_LIMIT, EXCHANGE, OPERATOR_POLICY, POLICY, QUEUE, BINDING)
# In the virtual host, but for an administrator's eyes: read where anybody named one.
_GUARDED = (PERMISSION, TOPIC_PERMISSION)
_EFFECTIVE = "effective_policy_definition"


def observe(
    management: Management,
    vhost: str,
    *,
    requires: str | None = None,
    version: str | None = None,
    named: Collection[Identity] = (),
) -> Observed:
    """Read a virtual host: nine requests, however much is in it, and at most five more.

    Args:
        management: the management API.
        vhost: name of the virtual host, which need not exist.
        requires: the least version of RabbitMQ that will do.
        version: RabbitMQ's, where it has been asked for already.
        named: what the topology or its record names. Users, their limits and global parameters
            live beside the virtual hosts: of these only the named ones are looked at.
            Permissions are read where any is named, since that takes an administrator.

    Raises:
        UnsupportedBroker: RabbitMQ is too old.
        Unreachable, AccessRefused, BrokerUnavailable: see `broker.errors`.
    """
    version = version or management.require(requires)
    asked = {identity.kind for identity in named}
    objects = dict(read_kind(management, vhost, VHOST))
    effective: dict[str, Mapping[str, Any]] = {}
    if objects:
        for kind in (*_KINDS, *(kind for kind in _GUARDED if kind in asked)):
            if kind == QUEUE:
                answers = _queue_answers(management, vhost)
                objects |= by_identity(map(_queue, answers))
                effective = _effective(answers, objects)
            else:
                objects |= read_kind(management, vhost, kind)
        objects |= _read_parameters(management, vhost, needed=PARAMETER in asked)
    for kind in sorted(OUTSIDE & asked):
        there = read_kind(management, vhost, kind)
        objects |= {each: there[each] for each in named if each in there}
    return Observed(version, vhost, objects, effective)


def read_kind(management: Management, vhost: str, kind: str) -> Objects:
    """Read all objects of one kind, with one request (bindings: at most two).

    Of the kinds beside the virtual hosts that is all that the broker has.
    """
    read = {
        VHOST: _vhosts,
        VHOST_LIMIT: _vhost_limits,
        USER: _users,
        USER_LIMIT: _user_limits,
        PERMISSION: _permissions,
        TOPIC_PERMISSION: _topic_permissions,
        EXCHANGE: _exchanges,
        OPERATOR_POLICY: _operator_policies,
        POLICY: _policies,
        QUEUE: _queues,
        BINDING: _bindings,
        PARAMETER: _parameters,
        GLOBAL_PARAMETER: _global_parameters,
    }[kind]
    return by_identity(read(management, vhost))


def read_effective(management: Management, vhost: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the policy settings in force on each queue, by its name."""
    answers = _queue_answers(management, vhost)
    if all(_EFFECTIVE in answer for answer in answers):
        return _effective(answers, {})
    policies = read_kind(management, vhost, POLICY)
    return _effective(answers, {**policies, **read_kind(management, vhost, OPERATOR_POLICY)})


def _vhosts(management: Management, vhost: str) -> Iterator[Object]:
    # The list, since reading a single virtual host takes an administrator.
    for answer in management.get("vhosts"):
        # One that is being deleted has no name any more.
        if answer.get("name") == vhost:
            # What has never been set is "undefined" or missing, and means classic queues.
            default = answer.get("default_queue_type")
            yield Object(
                Identity(VHOST, (vhost,)),
                {
                    "default_queue_type": "classic" if default in (None, "undefined") else default,
                    "description": answer.get("description") or "",
                    "tags": sorted(answer.get("tags") or []),
                    "protected_from_deletion": answer.get("protected_from_deletion", False),
                },
            )


def _vhost_limits(management: Management, vhost: str) -> Iterator[Object]:
    for answer in management.get("vhost-limits", vhost):
        # No limits come as an empty list.
        for name, value in dict(answer["value"]).items():
            yield Object(Identity(VHOST_LIMIT, (name,)), {"value": value})


def _users(management: Management, vhost: str) -> Iterator[Object]:
    for answer in management.get("users"):
        tags = answer["tags"]
        yield Object(
            Identity(USER, (answer["name"],)),
            {
                # RabbitMQ 3 wrote them with commas.
                "tags": sorted(filter(None, tags.split(",")) if isinstance(tags, str) else tags),
                "password_hash": answer["password_hash"],
                "hashing_algorithm": answer["hashing_algorithm"],
            },
        )


def _user_limits(management: Management, vhost: str) -> Iterator[Object]:
    for answer in management.get("user-limits"):
        for name, value in dict(answer["value"]).items():
            yield Object(Identity(USER_LIMIT, (answer["user"], name)), {"value": value})


def _permissions(management: Management, vhost: str) -> Iterator[Object]:
    for answer in management.get("vhosts", vhost, "permissions"):
        attributes = {key: answer[key] for key in ("configure", "write", "read")}
        yield Object(Identity(PERMISSION, (answer["user"],)), attributes)


def _topic_permissions(management: Management, vhost: str) -> Iterator[Object]:
    for answer in management.get("vhosts", vhost, "topic-permissions"):
        attributes = {key: answer[key] for key in ("write", "read")}
        yield Object(Identity(TOPIC_PERMISSION, (answer["user"], answer["exchange"])), attributes)


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
    return _policies_of(POLICY, management.get("policies", vhost))


def _operator_policies(management: Management, vhost: str) -> Iterator[Object]:
    return _policies_of(OPERATOR_POLICY, management.get("operator-policies", vhost))


def _policies_of(kind: str, answers: list[dict[str, Any]]) -> Iterator[Object]:
    for answer in answers:
        attributes = {key: answer[key] for key in ("apply-to", "pattern", "priority", "definition")}
        yield Object(Identity(kind, (answer["name"],)), attributes)


def _read_parameters(management: Management, vhost: str, *, needed: bool) -> Objects:
    try:
        return read_kind(management, vhost, PARAMETER)
    except AccessRefused:
        # It takes a policymaker; without any in the file it is nothing to stop for.
        if needed:
            raise
        return {}


def _parameters(management: Management, vhost: str) -> Iterator[Object]:
    # There is no list for one virtual host and all components.
    for answer in management.get("parameters"):
        # Limits and operator policies are objects of their own.
        listed = answer["component"] not in ("vhost-limits", "operator_policy")
        if answer["vhost"] == vhost and listed:
            identity = Identity(PARAMETER, (answer["component"], answer["name"]))
            yield Object(identity, {"value": answer["value"]})


def _global_parameters(management: Management, vhost: str) -> Iterator[Object]:
    for answer in management.get("global-parameters"):
        yield Object(Identity(GLOBAL_PARAMETER, (answer["name"],)), {"value": answer["value"]})


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


def _effective(answers: list[dict[str, Any]], policies: Objects) -> dict[str, Mapping[str, Any]]:
    if all(_EFFECTIVE in answer for answer in answers):
        # An empty definition comes as an empty list.
        return {answer["name"]: answer[_EFFECTIVE] or {} for answer in answers}
    # RabbitMQ 4.0 tells which policy is in force, not what comes of it.
    of_operators = Policies({i: each for i, each in policies.items() if i.kind == OPERATOR_POLICY})
    found: dict[str, Mapping[str, Any]] = {}
    for answer in answers:
        policy = policies.get(Identity(POLICY, (answer.get("policy") or "",)))
        match = of_operators.of(answer["name"], str(_queue(answer).attributes["type"]))
        found[answer["name"]] = merged(replace(match, policies=(policy,) if policy else ()))
    return found


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
        except BrokerUnavailable as again:
            if type(again) is not BrokerUnavailable:
                raise
            raise BrokerUnavailable(
                f"RabbitMQ cannot list the bindings of virtual host {vhost!r} ({exc}), nor export"
                " them: probably one has ~ in its routing key and arguments, over which one older"
                " than 4.3 fails; unbind it by a client that knows it, or upgrade RabbitMQ"
            ) from again
    return answers
