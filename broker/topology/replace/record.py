"""What a replacement has to know to go on after it was killed; kept on RabbitMQ itself.

The record is a global parameter for each object that is being replaced. It is written before
the first change, after each step, and deleted at the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.management import Management
from broker.topology.objects import BINDING, Identity, Object
from broker.topology.ownership import REPLACE_PREFIX

VERSION = 1


@dataclass(frozen=True, slots=True)
class Replacement:
    """A queue or exchange on its way from one state to another.

    Attributes:
        owner: the topology that wants it.
        vhost: the virtual host.
        identity: the queue or exchange.
        before: its attributes at the start.
        after: its attributes at the end; those of `before` where it is rolled back.
        step: the step to do next, one of `broker.topology.replace.steps`.
        bindings: what must be bound to it, and from it, at the end.
        settings: policy settings that hold for its helpers.
        back: whether it is rolled back.
    """

    owner: str
    vhost: str
    identity: Identity
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    step: str
    bindings: tuple[Identity, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    back: bool = False

    @property
    def name(self) -> str:
        """The name of the queue or exchange."""
        return self.identity.name[0]

    @property
    def wanted(self) -> Object:
        """The queue or exchange as it is to be."""
        return Object(self.identity, self.after)

    @property
    def record_name(self) -> str:
        """The name of the global parameter."""
        # A hash, so that no two virtual hosts, kinds and names can be read as one.
        where = "\0".join((self.vhost, self.identity.kind, self.name))
        return f"{REPLACE_PREFIX}{hashlib.sha256(where.encode()).hexdigest()[:24]}"

    def document(self) -> dict[str, Any]:
        """Return the record as JSON."""
        return {
            "version": VERSION,
            "owner": self.owner,
            "vhost": self.vhost,
            "kind": self.identity.kind,
            "name": self.name,
            "before": dict(self.before),
            "after": dict(self.after),
            "step": self.step,
            "bindings": [list(each.name) for each in self.bindings],
            "settings": dict(self.settings),
            "back": self.back,
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Replacement:
        """Read what `document` wrote."""
        # RabbitMQ gives an empty object back as an empty list.
        return cls(
            owner=document["owner"],
            vhost=document["vhost"],
            identity=Identity(document["kind"], (document["name"],)),
            before=_attributes(document["before"]),
            after=_attributes(document["after"]),
            step=document["step"],
            bindings=tuple(Identity(BINDING, tuple(name)) for name in document["bindings"]),
            settings=dict(document["settings"] or {}),
            back=document["back"],
        )


def pending(management: Management, vhost: str, owner: str | None = None) -> list[Replacement]:
    """Return the replacements that were begun and not ended; one request.

    Args:
        management: the management API.
        vhost: the virtual host.
        owner: the topology that began them; None for all.

    Raises:
        AccessRefused: the user has neither the tag policymaker nor administrator.
    """
    found = _all(management.get("global-parameters"))
    return sorted(
        (each for each in found if each.vhost == vhost and owner in (None, each.owner)),
        key=lambda each: each.identity,
    )


def write(management: Management, replacement: Replacement) -> None:
    """Write the record."""
    name = replacement.record_name
    management.put("global-parameters", name, body={"name": name, "value": replacement.document()})


def delete(management: Management, replacement: Replacement) -> None:
    """Delete the record."""
    management.delete("global-parameters", replacement.record_name)


def _all(answers: Iterable[Mapping[str, Any]]) -> Iterable[Replacement]:
    return (
        Replacement.of(answer["value"])
        for answer in answers
        if answer["name"].startswith(REPLACE_PREFIX)
    )


def _attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {**attributes, "arguments": dict(attributes.get("arguments") or {})}
