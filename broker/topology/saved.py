"""Plans in files: what somebody has looked at, and nothing else, is what apply then does.

A file names objects and attributes, never values: there is no secret in it. The topology is
compiled anew when it is applied, and the plan is refused where the file, or RabbitMQ, is not
what it was. That a variable holds another secret than before cannot be told from a plan that
would set it anyway: a digest of a password would be a way to guess it. So the plan names the
variables that it will be set from.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from broker.errors import ApplyRefused, InvalidData
from broker.topology.celery_names import celery_owned
from broker.topology.changes import Change
from broker.topology.look import Look
from broker.topology.model import Topology
from broker.topology.objects import (
    BINDING,
    GLOBAL_PARAMETER,
    PARAMETER,
    QUEUE,
    USER,
    Desired,
    Identity,
    Observed,
    canonical,
    shown,
)
from broker.topology.ownership import Records, is_rabbitrys
from broker.topology.references import references_in

VERSION = 1
_OWNERSHIP = "ownership"
# Kinds whose values a file may take from variables that only apply reads.
_WITH_SECRETS = frozenset({USER, PARAMETER, GLOBAL_PARAMETER})


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """A plan as it is kept in a file.

    Attributes:
        owner, vhost: the topology and its virtual host.
        made_at: when, in UTC.
        prune: whether it deletes what the file no longer names.
        topology: a digest of what the topology wants.
        fingerprint: a digest of what RabbitMQ had, by kind.
        changes: action, kind, name and the names of the attributes that differ.
        secrets: the variables and files that its changes take secrets from, by object; what
            they hold is asked for on apply.
    """

    owner: str
    vhost: str
    made_at: str
    prune: bool
    topology: str
    fingerprint: Mapping[str, str]
    changes: tuple[Any, ...]
    secrets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Look, *, prune: bool, topology: Topology | None = None) -> Self:
        """Return what is kept of a plan.

        Args:
            found: the plan, and what it was made from.
            prune: whether it deletes what the file no longer names.
            topology: the file, for the names of the variables that secrets come from.
        """
        return cls(
            found.plan.owner,
            found.plan.vhost,
            datetime.now(UTC).isoformat(timespec="seconds"),
            prune,
            topology_digest(found.desired),
            fingerprint(found.observed, found.records),
            tuple(_change(change) for change in found.plan.changes),
            {} if topology is None else secrets_of(topology, found.plan.changes),
        )

    def write(self, path: str | Path) -> None:
        """Write the plan to a file.

        Raises:
            InvalidData: the file cannot be written.
        """
        document = {
            "rabbitry_plan": VERSION,
            "topology": self.owner,
            "vhost": self.vhost,
            "made_at": self.made_at,
            "prune": self.prune,
            "topology_digest": self.topology,
            "fingerprint": dict(self.fingerprint),
            "changes": list(self.changes),
            "secrets": {name: list(each) for name, each in self.secrets.items()},
        }
        try:
            Path(path).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        except OSError as exc:
            raise InvalidData(f"{path}: the plan cannot be written: {exc.strerror}") from exc

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a plan from a file.

        Raises:
            InvalidData: there is none, or it is not a plan.
        """
        try:
            document = json.loads(Path(path).read_text())
            if document["rabbitry_plan"] != VERSION:
                raise InvalidData(
                    f"{path}: this plan is of version {document['rabbitry_plan']}, not"
                    f" {VERSION}; make a new one with `rabbitry topology plan --out`"
                )
            return cls(
                document["topology"],
                document["vhost"],
                document["made_at"],
                document["prune"],
                document["topology_digest"],
                document["fingerprint"],
                tuple(document["changes"]),
                {name: tuple(each) for name, each in document.get("secrets", {}).items()},
            )
        except OSError as exc:
            raise InvalidData(f"{path}: the plan cannot be read: {exc.strerror}") from exc
        except (ValueError, KeyError, TypeError) as exc:
            raise InvalidData(
                f"{path}: this is not a plan; `rabbitry topology plan --out FILE` makes one"
            ) from exc

    def check(self, found: Look) -> None:
        """Check that the plan still holds.

        Raises:
            ApplyRefused: says what has changed since.
        """
        again = "look at a new plan: `rabbitry topology plan --out`"
        if (self.owner, self.vhost) != (found.plan.owner, found.plan.vhost):
            raise ApplyRefused(
                f"the plan is of topology {self.owner!r} in virtual host {self.vhost!r}, not of"
                f" {found.plan.owner!r} in {found.plan.vhost!r}"
            )
        if self.topology != topology_digest(found.desired):
            raise ApplyRefused(
                f"the topology file has changed since the plan was made at {self.made_at}; {again}"
            )
        now = fingerprint(found.observed, found.records)
        changed = sorted(
            kind
            for kind in self.fingerprint.keys() | now
            if self.fingerprint.get(kind) != now.get(kind)
        )
        if changed:
            raise ApplyRefused(
                f"RabbitMQ has changed since the plan was made at {self.made_at}"
                f" ({', '.join(changed)}); {again}"
            )
        if list(self.changes) != [_change(change) for change in found.plan.changes]:
            raise ApplyRefused(
                f"the plan made at {self.made_at} is not what would be done now: queues hold"
                f" something else, or a secret has changed; {again}"
            )


def secrets_of(topology: Topology, changes: Iterable[Change]) -> dict[str, tuple[str, ...]]:
    """Return where the secrets of changes come from: references of the file, by object."""
    data = topology.model_dump(mode="json", exclude_unset=True)
    found: dict[str, tuple[str, ...]] = {}
    for change in changes:
        after = change.after
        if after is None or not after.path or after.identity.kind not in _WITH_SECRETS:
            continue
        said: Any = data
        for part in after.path:
            said = said.get(str(part), {}) if isinstance(said, Mapping) else {}
        if listed := tuple(sorted(set(references_in(said)))):
            found[str(change.identity)] = listed
    return found


def topology_digest(desired: Desired) -> str:
    """Return a digest of what a topology wants, secrets apart."""
    return _digest(
        [
            [*_named(identity), shown(each), each.protected]
            for identity, each in sorted(desired.objects.items())
        ]
    )


def fingerprint(observed: Observed, records: Records) -> dict[str, str]:
    """Return a digest of what RabbitMQ has, by kind of object, and of whose it is.

    Objects that come and go with a connection, and Celery's own, do not count.
    """
    passing = {
        identity
        for identity, each in observed.objects.items()
        if each.attributes.get("exclusive") or is_rabbitrys(identity) or celery_owned(identity)
    }
    kinds: dict[str, list[Any]] = defaultdict(list)
    for identity, each in sorted(observed.objects.items()):
        ends_in = Identity(QUEUE, identity.name[2:3]) if identity.kind == BINDING else identity
        if identity not in passing and ends_in not in passing:
            kinds[identity.kind].append([*_named(identity), dict(each.attributes)])
    found = {kind: _digest(listed) for kind, listed in kinds.items()}
    found[_OWNERSHIP] = _digest([each.document() for each in (records.own, *records.others)])
    return found


def _change(change: Change) -> list[Any]:
    attributes = [each.attribute for each in change.differences]
    return [change.action, *_named(change.identity), attributes, bool(change.hindrance)]


def _named(identity: Identity) -> list[Any]:
    return [identity.kind, list(identity.name)]


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()
