"""What a running RabbitMQ has, as far as its user may read it."""

from __future__ import annotations

from dataclasses import dataclass

from broker.errors import AccessRefused
from broker.management import Management, version_key
from broker.topology.export.select import default_name
from broker.topology.objects import (
    ADMINISTRATORS,
    GLOBAL_PARAMETER,
    POLICY,
    VHOST,
    Objects,
)
from broker.topology.observe import observe, read_kind
from broker.topology.ownership import Record, Records, all_records
from broker.topology.policies import owner_of


@dataclass(frozen=True, slots=True)
class Live:
    """A virtual host.

    Attributes:
        objects: all that could be read.
        records: of every topology that manages something in it; what nobody may read is empty.
        user: who is logged in.
        version: RabbitMQ's.
        unread: kinds that this user may not read.
    """

    objects: Objects
    records: tuple[Record, ...]
    user: str
    version: str
    unread: tuple[str, ...]

    @property
    def exists(self) -> bool:
        """Whether the virtual host exists."""
        return any(identity.kind == VHOST for identity in self.objects)

    def name(self, vhost: str) -> str:
        """Return the name that the file gets when nobody says one."""
        policies = [
            owner
            for identity in self.objects
            if identity.kind == POLICY and (owner := owner_of(identity.name[0])) is not None
        ]
        return default_name([each.owner for each in self.records], policies, vhost)

    def records_of(self, owner: str, vhost: str) -> Records:
        """Return the records as one topology sees them."""
        own = next((each for each in self.records if each.owner == owner), Record(owner, vhost))
        return Records(own, tuple(each for each in self.records if each.owner != owner))


def read_live(management: Management, vhost: str) -> Live:
    """Read a virtual host, and users and global parameters where the user may.

    Raises:
        Unreachable, AccessRefused, UnsupportedBroker, BrokerUnavailable: see `broker.errors`.
    """
    observed = observe(management, vhost)
    found = dict(observed.objects)
    unread = []
    for kind in (*sorted(ADMINISTRATORS), GLOBAL_PARAMETER) if observed.exists else ():
        try:
            found |= read_kind(management, vhost, kind)
        except AccessRefused:
            unread.append(kind)
    records = () if GLOBAL_PARAMETER in unread else tuple(all_records(management, vhost))
    user = management.get("whoami")["name"]
    return Live(found, records, user, observed.version, tuple(unread))


def major_minor(version: str) -> str:
    """Return the part of a version that tells what RabbitMQ can do, such as ``4.3``."""
    return ".".join(str(number) for number in version_key(version)[:2])
