"""The objects of a virtual host, as they should be or as they are; the words of plan and apply.

One shape for every kind, so that comparing, ordering and reporting know no kinds: an object
has an identity, which never changes, and attributes, which may differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.topology.source import DataPath

VHOST, EXCHANGE, POLICY, QUEUE, BINDING = "vhost", "exchange", "policy", "queue", "binding"
VHOST_LIMIT, OPERATOR_POLICY, PARAMETER = "vhost-limit", "operator-policy", "parameter"
USER, USER_LIMIT, GLOBAL_PARAMETER = "user", "user-limit", "global-parameter"
PERMISSION, TOPIC_PERMISSION = "permission", "topic-permission"

# The order of creation. Users before what they may do; exchanges before policies and topic
# permissions, which name them; policies before queues, so that no queue is ever without its
# dead-lettering; bindings when all is ready to receive; shovels and federation last, since they
# move messages at once.
CREATION_ORDER = (
    VHOST,
    VHOST_LIMIT,
    USER,
    USER_LIMIT,
    PERMISSION,
    EXCHANGE,
    TOPIC_PERMISSION,
    OPERATOR_POLICY,
    POLICY,
    QUEUE,
    BINDING,
    PARAMETER,
    GLOBAL_PARAMETER,
)
# Kinds that RabbitMQ changes in place. An exchange or a queue it never changes: it refuses, or
# answers 204 and does nothing. A binding is all identity.
CHANGEABLE = frozenset(CREATION_ORDER) - {EXCHANGE, QUEUE, BINDING}
# Kinds of which only what the file says is compared: several files may share a virtual host,
# and a user whose password the file does not tell keeps it.
PARTIAL = frozenset({VHOST, USER})
# Kinds that live beside the virtual hosts: those that nobody named are nobody's business here.
OUTSIDE = frozenset({USER, USER_LIMIT, GLOBAL_PARAMETER})
# Kinds that only an administrator may read.
ADMINISTRATORS = frozenset({USER, USER_LIMIT, PERMISSION, TOPIC_PERMISSION})

_LABELS = {VHOST: "virtual host", VHOST_LIMIT: "limit of the virtual host"}


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """What an object is, whatever its attributes.

    Attributes:
        kind: one of `CREATION_ORDER`.
        name: the name; for a binding its source, "queue" or "exchange", destination, routing
            key and arguments as `canonical` text; (component, name) of a parameter, (user,) of
            a permission, (user, exchange) of a topic permission, (user, limit) of a user limit.
    """

    kind: str
    name: tuple[str, ...]

    def __str__(self) -> str:
        label = _LABELS.get(self.kind, self.kind.replace("-", " "))
        first, *rest = self.name
        if self.kind == PARAMETER:
            return f"{first.replace('-', ' ')} {rest[0]!r}"
        if self.kind == PERMISSION:
            return f"permission of user {first!r}"
        if self.kind == TOPIC_PERMISSION:
            return f"topic permission of user {first!r} on exchange {rest[0]!r}"
        if self.kind == USER_LIMIT:
            return f"limit {rest[0]!r} of user {first!r}"
        if self.kind != BINDING:
            return f"{label} {first!r}"
        source, kind, destination, routing_key, arguments = self.name
        with_arguments = "" if arguments == "{}" else f" with {arguments}"
        return f"{label} {source!r} to {kind} {destination!r}, key {routing_key!r}{with_arguments}"


@dataclass(frozen=True, slots=True)
class Object:
    """An object.

    Attributes:
        identity: which one.
        attributes: its settings by RabbitMQ's names; mappings (`arguments`, `definition`) are
            compared key by key.
        path: where it stands in the topology file, or () where it does not.
        covers: for a generated policy the names of the queues or exchanges it is for.
        protected: whether it is never deleted; kept in rabbitry's record, not by RabbitMQ.
        secrets: the attributes (by their name in `flat`) that are never shown; see `shown`.
        password: the plain password of a user, in place of which its hash is compared.
    """

    identity: Identity
    attributes: Mapping[str, Any]
    path: DataPath = ()
    covers: tuple[str, ...] = ()
    protected: bool = False
    secrets: frozenset[str] = frozenset()
    password: str | None = field(default=None, repr=False, compare=False)


Objects = Mapping[Identity, Object]


@dataclass(frozen=True, slots=True)
class Desired:
    """What the topology wants in one virtual host.

    Attributes:
        owner: the topology's name.
        vhost: the virtual host.
        objects: everything in it, the virtual host included.
    """

    owner: str
    vhost: str
    objects: Objects


@dataclass(frozen=True, slots=True)
class Observed:
    """What RabbitMQ has in one virtual host.

    Attributes:
        version: RabbitMQ's.
        vhost: the virtual host, whether it exists or not.
        objects: everything in it, the virtual host included; without RabbitMQ's own exchanges.
        effective: the policy settings in force on each queue, by its name.
    """

    version: str
    vhost: str
    objects: Objects
    effective: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def exists(self) -> bool:
        """Whether the virtual host exists."""
        return Identity(VHOST, (self.vhost,)) in self.objects


def canonical(value: Any) -> str:
    """Return JSON text that is equal for equal values, and only for those: 1 is not true."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def binding_identity(
    *, source: str, kind: str, destination: str, routing_key: str, arguments: Mapping[str, Any]
) -> Identity:
    """Return the identity of a binding; kind is "queue" or "exchange"."""
    return Identity(BINDING, (source, kind, destination, routing_key, canonical(arguments)))


def by_identity(objects: Iterable[Object]) -> dict[Identity, Object]:
    """Return objects by their identity."""
    return {each.identity: each for each in objects}


def flat(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield attributes, those of mappings one by one as ``arguments.x-max-length``."""
    for name, value in attributes.items():
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield f"{name}.{key}", inner
        else:
            yield name, value


HIDDEN = "(hidden)"
_PASSWORD_IN_URI = re.compile(r"(?P<before>[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s:@]*:)[^/?#\s@]+(?=@)")


def shown(each: Object, *, secrets: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return the attributes of an object as anybody may see them; see `masked`.

    Args:
        each: the object.
        secrets: attributes to hide on top of its own, such as those of its other state.
    """
    return {
        name: {
            key: masked(each.identity.kind, f"{name}.{key}", inner, secrets | each.secrets)
            for key, inner in value.items()
        }
        if isinstance(value, Mapping) and name not in secrets | each.secrets
        else masked(each.identity.kind, name, value, secrets | each.secrets)
        for name, value in each.attributes.items()
    }


def masked(kind: str, attribute: str, value: Any, secrets: frozenset[str] = frozenset()) -> Any:
    """Return a value as anybody may see it: no password, no hash of one, no resolved secret.

    Args:
        kind: of the object.
        attribute: its name in `flat`.
        value: what it is; None, which means that it is not set, is shown.
        secrets: the attributes that the file fills from variables and files.
    """
    if value is None:
        return None
    if attribute in secrets or (kind == USER and attribute == "password_hash"):
        return HIDDEN
    if isinstance(value, str):
        return _PASSWORD_IN_URI.sub(r"\g<before>***", value)
    if isinstance(value, list | tuple):
        return [masked(kind, attribute, inner, secrets) for inner in value]
    if isinstance(value, Mapping):
        return {key: masked(kind, attribute, inner, secrets) for key, inner in value.items()}
    return value
