"""What a replacement has to know to go on after it was killed; kept on RabbitMQ itself.

The record is a global parameter for each object that is being replaced. It is written before
the first change, after each step, and deleted at the end.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.management import Management
from broker.topology.objects import BINDING, EXCHANGE, QUEUE, Identity, Object
from broker.topology.ownership import REPLACE_PREFIX
from broker.topology.replace import steps

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
    def standing(self) -> str:
        """How far it has come, in words."""
        names = steps.steps_of(self.identity)
        back = " on its way back" if self.back else ""
        return f"step {names.index(self.step) + 1} of {len(names)} ({self.step}){back}"

    @property
    def can_go_back(self) -> bool:
        """Whether it can be rolled back."""
        return self.back or steps.can_go_back(self.identity, self.step)

    @property
    def interruption(self) -> str:
        """That it was interrupted, where it stands, and what to run."""
        text = (
            f"a replacement of {self.identity} was interrupted at {self.standing};"
            " `rabbitry topology apply --allow-replace` goes on with it"
        )
        if self.can_go_back:
            text += f", `rabbitry topology rollback {shlex.quote(self.name)}` undoes it"
        return text

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


def is_void(replacement: Replacement, there: Container[Identity]) -> bool:
    """Say whether nothing of a replacement is there: its virtual host was deleted meanwhile.

    Args:
        replacement: one that was begun.
        there: the queues and exchanges of the virtual host.
    """
    helpers = steps.Helpers.of(replacement.identity).names
    if any(Identity(kind, (name,)) in there for kind in (QUEUE, EXCHANGE) for name in helpers):
        return False
    # Only before the first step and after the last can it have no helper.
    return replacement.step not in ("prepare", "clean") or replacement.identity not in there


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
