"""Sections of the file whose objects stand in it one by one; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from broker.topology.export.folding import fold_link, friendly_definition
from broker.topology.export.select import LeftOut
from broker.topology.links import Shovel, Upstream, UpstreamMember
from broker.topology.objects import (
    GLOBAL_PARAMETER,
    OPERATOR_POLICY,
    PARAMETER,
    PERMISSION,
    TOPIC_PERMISSION,
    USER,
    USER_LIMIT,
    VHOST_LIMIT,
    Object,
    Objects,
)

_SHA256 = "rabbit_password_hashing_sha256"


def policy_section(policies: Mapping[str, Object], *, default: str) -> dict[str, Any]:
    """Return policies or operator policies as the file says them.

    Args:
        policies: by name.
        default: what they apply to when the file does not say.
    """
    section: dict[str, Any] = {}
    for name, each in sorted(policies.items()):
        found = each.attributes
        section[name] = {
            "pattern": found["pattern"],
            **({} if found["apply-to"] == default else {"apply_to": found["apply-to"]}),
            **({} if found["priority"] == 0 else {"priority": found["priority"]}),
            "definition": friendly_definition(found["definition"]),
        }
    return section


def operator_policies(objects: Objects) -> dict[str, Any]:
    """Return the operator policies as the file says them."""
    found = {
        name[0]: each
        for (kind, name), each in _by_kind(objects)
        if kind == OPERATOR_POLICY and each.attributes["definition"]
    }
    return policy_section(found, default="queues")


def limits(objects: Objects) -> dict[str, Any]:
    """Return the limits of the virtual host as the file says them."""
    return {
        name[0].replace("-", "_"): each.attributes["value"]
        for (kind, name), each in _by_kind(objects)
        if kind == VHOST_LIMIT
    }


def users(objects: Objects, *, password_hashes: bool) -> dict[str, Any]:
    """Return users as the file says them, with their rights and limits.

    Args:
        objects: what the file takes in.
        password_hashes: whether the hashes of their passwords stand in it; a user without
            keeps the password that it has.
    """
    section: dict[str, Any] = {}
    for (kind, name), each in _by_kind(objects):
        found = each.attributes
        if kind == USER:
            user: dict[str, Any] = {}
            if password_hashes and "password_hash" in found:
                user["password_hash"] = found["password_hash"]
                if (algorithm := found["hashing_algorithm"]) != _SHA256:
                    user["hashing_algorithm"] = algorithm
            # Also none: of a user only what the file says is compared.
            if "tags" in found:
                user["tags"] = sorted(found["tags"])
            section[name[0]] = user
    for (kind, name), each in _by_kind(objects):
        found = each.attributes
        if kind == PERMISSION:
            section[name[0]]["permissions"] = _unless(found, "^$")
        elif kind == TOPIC_PERMISSION:
            section[name[0]].setdefault("topic_permissions", {})[name[1]] = _unless(found, ".*")
        elif kind == USER_LIMIT:
            limit = name[1].replace("-", "_")
            section[name[0]].setdefault("limits", {})[limit] = found["value"]
    return section


def links(objects: Objects) -> tuple[dict[str, dict[str, Any]], list[LeftOut]]:
    """Return shovels, federation and other parameters by section, and what cannot be said."""
    shovels: dict[str, Any] = {}
    upstreams: dict[str, Any] = {}
    sets: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    left: list[LeftOut] = []
    for (kind, name), each in _by_kind(objects):
        if kind != PARAMETER:
            continue
        component, parameter = name
        value = each.attributes["value"]
        if component == "shovel":
            folded: Any = fold_link(Shovel, value)
            shovels[parameter] = folded
        elif component == "federation-upstream":
            folded = upstreams[parameter] = fold_link(Upstream, value)
        elif component == "federation-upstream-set":
            members = [fold_link(UpstreamMember, member) for member in value]
            unknown = any(member is None or "arguments" in member for member in members)
            folded = sets[parameter] = None if unknown or not members else members
        else:
            folded = value
            parameters.setdefault(component, {})[parameter] = value
        if folded is None and component not in parameters:
            left.append(LeftOut(each.identity, "the file cannot say its value"))
    federation = {"upstreams": _said(upstreams), "upstream_sets": _said(sets)}
    return {
        "shovels": _said(shovels),
        "federation": {key: section for key, section in federation.items() if section},
        "parameters": parameters,
    }, left


def global_parameters(objects: Objects) -> dict[str, Any]:
    """Return the global parameters as the file says them."""
    return {
        name[0]: each.attributes["value"]
        for (kind, name), each in _by_kind(objects)
        if kind == GLOBAL_PARAMETER
    }


def _by_kind(objects: Objects) -> Iterator[tuple[tuple[str, tuple[str, ...]], Object]]:
    for identity in sorted(objects):
        yield (identity.kind, identity.name), objects[identity]


def _said(section: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in section.items() if value is not None}


def _unless(found: Mapping[str, Any], default: str) -> dict[str, Any]:
    return {key: value for key, value in found.items() if value != default}
