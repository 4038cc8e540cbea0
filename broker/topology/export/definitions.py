"""RabbitMQ's definitions files, of a whole broker or one virtual host, in the plan's words.

https://www.rabbitmq.com/docs/definitions. They leave out internal exchanges, but not their
bindings. Those that people write leave out what RabbitMQ has a default for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from broker.errors import did_you_mean
from broker.topology.objects import (
    EXCHANGE,
    GLOBAL_PARAMETER,
    OPERATOR_POLICY,
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
    binding_identity,
    by_identity,
)
from broker.topology.settings import BUILT_IN_EXCHANGES
from broker.topology.source import Position

_POLICY = ("apply-to", "pattern", "priority", "definition")
_OLDEST_HASH = "rabbit_password_hashing_sha256"


def read_definitions(path: str | Path) -> dict[str, Any]:
    """Read a definitions file.

    Raises:
        TopologyError: it cannot be read, or is not one.
    """
    place = Position(str(path))
    try:
        found = json.loads(Path(path).read_bytes())
    except OSError as exc:
        raise place.error(f"the file cannot be read: {exc.strerror}") from None
    except ValueError as exc:
        raise place.error(f"this is not JSON: {exc}") from None
    if not isinstance(found, dict) or not isinstance(found.get("queues"), list):
        raise place.error(
            "this is not a definitions file; `rabbitmqctl export_definitions FILE` writes one"
        )
    return found


def choose_vhost(definitions: Mapping[str, Any], asked: str | None, *, file: str | Path) -> str:
    """Return the virtual host to convert.

    Args:
        definitions: the file.
        asked: the one that is asked for, or None for the only one.
        file: its path, for errors.

    Raises:
        TopologyError: it is not in the file, or must be named.
    """
    single = definitions.get("original_vhost_name")
    if not definitions.get("vhosts"):
        return asked or single or "/"
    names = [each["name"] for each in definitions["vhosts"]]
    listed = ", ".join(map(repr, names))
    if asked is None and len(names) > 1:
        raise Position(str(file)).error(f"it has several virtual hosts: choose by --vhost {listed}")
    if asked is not None and asked not in names:
        raise Position(str(file)).error(
            f"it has no virtual host {asked!r}{did_you_mean(asked, names)}; there are {listed}"
        )
    return asked or str(names[0])


def version_of(definitions: Mapping[str, Any]) -> str | None:
    """Return the version of the RabbitMQ that wrote the file, where it says so."""
    found = definitions.get("rabbitmq_version", definitions.get("rabbit_version"))
    return found if isinstance(found, str) else None


def objects_of(definitions: Mapping[str, Any], vhost: str, *, file: str | Path) -> Objects:
    """Return the objects of one virtual host, and the users and global parameters beside it.

    Raises:
        TopologyError: an entry lacks what RabbitMQ writes.
    """
    try:
        return by_identity(_objects(_Reader(definitions, vhost)))
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise Position(str(file)).error(
            f"an entry is not as RabbitMQ writes it ({type(exc).__name__}: {exc})"
        ) from None


class _Reader:
    """The entries of a virtual host; in a file of one alone they do not name it."""

    def __init__(self, definitions: Mapping[str, Any], vhost: str) -> None:
        self.definitions = definitions
        self.vhost = vhost

    def section(self, key: str) -> Iterator[Mapping[str, Any]]:
        for each in self.definitions.get(key) or []:
            if each.get("vhost", self.vhost) == self.vhost:
                yield each

    def beside(self, key: str) -> Iterator[Mapping[str, Any]]:
        yield from self.definitions.get(key) or []

    def own(self) -> Mapping[str, Any]:
        listed: list[Mapping[str, Any]] = self.definitions.get("vhosts") or []
        return next((each for each in listed if each["name"] == self.vhost), self.definitions)


def _objects(reader: _Reader) -> Iterator[Object]:
    yield from _vhost(reader)
    yield from _access(reader)
    for each in reader.section("exchanges"):
        if each["name"] and each["name"] not in BUILT_IN_EXCHANGES:
            attributes = {
                "type": each["type"],
                "durable": each.get("durable", True),
                "auto_delete": each.get("auto_delete", False),
                "arguments": each.get("arguments") or {},
                "internal": bool(each.get("internal")),
            }
            yield _object(EXCHANGE, attributes, each["name"])
    for each in reader.section("policies"):
        said = {"apply-to": "all", "priority": 0, **each}
        yield _object(POLICY, {key: said[key] for key in _POLICY}, each["name"])
    for each in reader.section("queues"):
        yield _queue(each)
    for each in reader.section("bindings"):
        if each["source"]:
            yield Object(
                binding_identity(
                    source=each["source"],
                    kind=each["destination_type"],
                    destination=each["destination"],
                    routing_key=each.get("routing_key", ""),
                    arguments=each.get("arguments") or {},
                ),
                {},
            )
    for each in reader.section("parameters"):
        component, name, value = each["component"], each["name"], each["value"]
        if component == "operator_policy":
            found = {"apply-to": "queues", "priority": 0, **value}
            yield _object(OPERATOR_POLICY, {key: found[key] for key in _POLICY}, name)
        elif component != "vhost-limits":
            yield _object(PARAMETER, {"value": value}, component, name)
    for each in reader.beside("global_parameters"):
        yield _object(GLOBAL_PARAMETER, {"value": each["value"]}, each["name"])


def _vhost(reader: _Reader) -> Iterator[Object]:
    own = reader.own()
    metadata = own.get("metadata") or {}
    limits = dict(own.get("limits") or {})
    for each in reader.section("parameters"):
        if each["component"] == "vhost-limits":
            limits |= each["value"]
    default = metadata.get("default_queue_type", own.get("default_queue_type"))
    attributes = {
        "default_queue_type": "classic" if default in (None, "undefined") else default,
        "description": metadata.get("description") or own.get("description") or "",
        "tags": sorted(metadata.get("tags") or own.get("tags") or []),
        "protected_from_deletion": bool(metadata.get("protected_from_deletion")),
    }
    yield _object(VHOST, attributes, reader.vhost)
    for name, value in limits.items():
        yield _object(VHOST_LIMIT, {"value": value}, name)


def _access(reader: _Reader) -> Iterator[Object]:
    for each in reader.beside("users"):
        tags = each.get("tags") or []
        attributes = {
            # RabbitMQ 3 wrote them with commas.
            "tags": sorted(filter(None, tags.split(",")) if isinstance(tags, str) else tags),
            # People write a plain password instead, which is nothing for a topology file.
            "password_hash": each.get("password_hash", ""),
            "hashing_algorithm": each.get("hashing_algorithm", _OLDEST_HASH),
        }
        yield _object(USER, attributes, each["name"])
        for limit, value in dict(each.get("limits") or {}).items():
            yield _object(USER_LIMIT, {"value": value}, each["name"], limit)
    for each in reader.section("permissions"):
        rights = {key: each[key] for key in ("configure", "write", "read")}
        yield _object(PERMISSION, rights, each["user"])
    for each in reader.section("topic_permissions"):
        rights = {key: each[key] for key in ("write", "read")}
        yield _object(TOPIC_PERMISSION, rights, each["user"], each["exchange"])


def _queue(each: Mapping[str, Any]) -> Object:
    arguments = dict(each.get("arguments") or {})
    # Before 4.0 the argument alone told the type, and its absence meant classic.
    type_ = arguments.pop("x-queue-type", None) or each.get("type") or "classic"
    attributes = {
        "type": type_,
        "durable": each.get("durable", True),
        "auto_delete": each.get("auto_delete", False),
        "arguments": arguments,
    }
    return _object(QUEUE, attributes, each["name"])


def _object(kind: str, attributes: Mapping[str, Any], *name: str) -> Object:
    return Object(Identity(kind, name), attributes)
