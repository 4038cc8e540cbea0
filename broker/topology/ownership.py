"""Whose an object is: a record for each topology and virtual host, kept on RabbitMQ itself.

The record is a global parameter. It is written before the objects are made and trimmed after
they are deleted, so that a run that is killed never leaves an own object without an owner.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from broker.errors import AccessRefused
from broker.management import Management
from broker.reply_queue import is_reply_queue
from broker.topology.objects import (
    BINDING,
    EXCHANGE,
    GLOBAL_PARAMETER,
    OPERATOR_POLICY,
    OUTSIDE,
    POLICY,
    QUEUE,
    Identity,
    Object,
)

PREFIX = "rabbitry.topology."
REPLACE_PREFIX = "rabbitry.replace."
# Everything that rabbitry keeps for itself on RabbitMQ; never anybody's objects.
OWN_PREFIX = "rabbitry."
LOCK_NAME = "rabbitry.apply"
VERSION = 1
# Kinds that are read in any case, and go with their virtual host.
_EVIDENCE = frozenset({EXCHANGE, QUEUE, BINDING, POLICY, OPERATOR_POLICY})


@dataclass(frozen=True, slots=True)
class Record:
    """What one topology manages in one virtual host.

    Attributes:
        owner: the topology's name.
        vhost: the virtual host.
        objects: what it made or took over.
        protected: those of them that are never deleted or replaced.
    """

    owner: str
    vhost: str
    objects: frozenset[Identity] = frozenset()
    protected: frozenset[Identity] = frozenset()

    def document(self) -> dict[str, Any]:
        """Return the record as JSON, in an order that depends on nothing but its content."""
        return {
            "version": VERSION,
            "vhost": self.vhost,
            "owner": self.owner,
            "objects": _listed(self.objects),
            "protected": _listed(self.protected),
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Record:
        """Read what `document` wrote."""
        return cls(
            document["owner"],
            document["vhost"],
            _identities(document["objects"]),
            _identities(document.get("protected", ())),
        )


@dataclass(frozen=True, slots=True)
class Records:
    """What every topology manages in one virtual host.

    Attributes:
        own: of the topology at hand; empty where it has none yet.
        others: of the other topologies.
        known: False where the user may not read records; then nothing counts as owned.
        void: records of others that tell of nothing that is still there; see `living`.
    """

    own: Record
    others: tuple[Record, ...] = ()
    known: bool = True
    void: tuple[Record, ...] = ()

    def living(self, objects: Container[Identity], *, exists: bool) -> Records:
        """Return the records of what can still be somebody's.

        Records stay when a virtual host is deleted by hand. They must not hold the names in a
        new one of the same name; what lives beside the virtual hosts remains its topology's.

        Args:
            objects: what there is.
            exists: whether the virtual host does.
        """
        others, void = [], []
        for each in self.others:
            evidence = [identity for identity in each.objects if identity.kind in _EVIDENCE]
            lives = any(identity in objects for identity in evidence)
            if exists and (lives or not evidence):
                others.append(each)
                continue
            rest = frozenset(one for one in each.objects if one.kind in OUTSIDE)
            void.append(each)
            if rest:
                others.append(replace(each, objects=rest, protected=each.protected & rest))
        return replace(self, others=tuple(others), void=tuple(void))

    def holder(self, identity: Identity) -> str | None:
        """Return the other topology that manages an object, or None."""
        return next((each.owner for each in self.others if identity in each.objects), None)


def name_of(vhost: str, owner: str) -> str:
    """Return the name of the global parameter that holds a record."""
    # A hash, so that no virtual host and owner together can be read as another pair.
    return f"{PREFIX}{hashlib.sha256(vhost.encode()).hexdigest()[:12]}.{owner}"


def read_record(management: Management, vhost: str, owner: str) -> Record | None:
    """Read the record of one topology.

    Raises:
        AccessRefused: the user has neither the tag policymaker nor administrator.
    """
    answer = management.find("global-parameters", name_of(vhost, owner))
    return None if answer is None else Record.of(answer["value"])


def all_records(management: Management, vhost: str) -> list[Record]:
    """Read the records of every topology in a virtual host, sorted by owner; one request."""
    return sorted(
        (
            Record.of(answer["value"])
            for answer in management.get("global-parameters")
            if answer["name"].startswith(PREFIX) and answer["value"].get("vhost") == vhost
        ),
        key=lambda each: each.owner,
    )


def read_records(management: Management, vhost: str, owner: str) -> Records:
    """Read the records of a virtual host as one topology sees them; one request."""
    own = Record(owner, vhost)
    try:
        found = all_records(management, vhost)
    except AccessRefused:
        # To look, the tag management is enough; what is whose then stays unknown.
        return Records(own, known=False)
    others = tuple(each for each in found if each.owner != owner)
    return Records(next((each for each in found if each.owner == owner), own), others)


def write_record(management: Management, record: Record) -> None:
    """Write a record; one of nothing is deleted."""
    name = name_of(record.vhost, record.owner)
    if not record.objects:
        management.delete("global-parameters", name)
        return
    body = {"name": name, "value": record.document()}
    management.put("global-parameters", name, body=body)


def is_rabbitrys(identity: Identity) -> bool:
    """Say whether an object is rabbitry's own and nobody's business: bookkeeping, reply queues."""
    if identity.kind == GLOBAL_PARAMETER:
        return identity.name[0].startswith(OWN_PREFIX)
    # What helps to replace a queue or an exchange is there for a moment only.
    if any(part.startswith(REPLACE_PREFIX) for part in identity.name):
        return True
    name = identity.name[0]
    return identity.kind == QUEUE and (name == LOCK_NAME or is_reply_queue(name))


def protected_of(objects: Iterable[Object]) -> frozenset[Identity]:
    """Return the objects that the file protects."""
    return frozenset(each.identity for each in objects if each.protected)


def _listed(identities: Iterable[Identity]) -> list[list[Any]]:
    return [[each.kind, list(each.name)] for each in sorted(identities)]


def _identities(listed: Iterable[Any]) -> frozenset[Identity]:
    return frozenset(Identity(kind, tuple(name)) for kind, name in listed)
