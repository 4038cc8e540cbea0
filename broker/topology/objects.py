"""The objects of a virtual host, as they should be or as they are; the words of plan and apply.

One shape for every kind, so that comparing, ordering and reporting know no kinds: an object
has an identity, which never changes, and attributes, which may differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.topology.source import DataPath

VHOST, EXCHANGE, POLICY, QUEUE, BINDING = "vhost", "exchange", "policy", "queue", "binding"

# The order of creation. Exchanges first, since policies name them; policies before queues, so
# that no queue is ever without its dead-lettering; bindings last, when all is ready to receive.
CREATION_ORDER = (VHOST, EXCHANGE, POLICY, QUEUE, BINDING)
# Kinds that RabbitMQ changes in place. An exchange or a queue it never changes: it refuses, or
# answers 204 and does nothing. A binding is all identity.
CHANGEABLE = frozenset({VHOST, POLICY})

_LABELS = {VHOST: "virtual host"}


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """What an object is, whatever its attributes.

    Attributes:
        kind: one of `CREATION_ORDER`.
        name: the name; for a binding its source, "queue" or "exchange", destination, routing
            key and arguments as `canonical` text.
    """

    kind: str
    name: tuple[str, ...]

    def __str__(self) -> str:
        label = _LABELS.get(self.kind, self.kind)
        if self.kind != BINDING:
            return f"{label} {self.name[0]!r}"
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
    """

    identity: Identity
    attributes: Mapping[str, Any]
    path: DataPath = ()
    covers: tuple[str, ...] = ()


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
