"""Which of RabbitMQ's objects a file takes in, and why not the others; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from broker.topology.celery_names import celery_owned
from broker.topology.objects import (
    BINDING,
    EXCHANGE,
    GLOBAL_PARAMETER,
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
)
from broker.topology.operation import Limits
from broker.topology.ownership import Records, is_rabbitrys
from broker.topology.policies import owner_of
from broker.topology.settings import BUILT_IN_EXCHANGES
from broker.topology.values import check_addressable, check_name

_LIMITS = {name.replace("_", "-") for name in Limits.model_fields}
_OF_USERS = (USER, USER_LIMIT, PERMISSION, TOPIC_PERMISSION)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An object that the file does not name, and why."""

    identity: Identity
    reason: str

    def __str__(self) -> str:
        return f"{self.identity}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Scope:
    """What is asked for.

    Attributes:
        name: of the topology; its own generated policies become keys again.
        records: whose objects are whose.
        user: who is logged in; a file that names its own user could lock it out.
        everything: take in what belongs to Celery and other topologies, and all users and
            global parameters.
    """

    name: str
    records: Records
    user: str | None = None
    everything: bool = False


def select(objects: Objects, scope: Scope) -> tuple[dict[Identity, Object], list[LeftOut]]:
    """Return what the file takes in, and what it leaves out and why."""
    left = [
        LeftOut(identity, reason)
        for identity, each in objects.items()
        if (reason := _reason(each, scope)) is not None
    ]
    gone = {each.identity for each in left}
    kept = {identity: each for identity, each in objects.items() if identity not in gone}
    for orphaned in (_without_ends, _without_user):
        lost = list(orphaned(kept))
        left += lost
        for each in lost:
            del kept[each.identity]
    if not scope.everything:
        # Users and global parameters that nobody here has to do with are not even mentioned.
        named = {each.name[0] for each in kept if each.kind == PERMISSION}
        own = scope.records.own.objects
        for identity in list(kept):
            of_user = identity.kind in _OF_USERS and identity.name[0] not in named
            beside = identity.kind == GLOBAL_PARAMETER or of_user
            if beside and identity not in own:
                del kept[identity]
    told = [each for each in left if not _goes_without_saying(each.identity, scope)]
    return kept, sorted(told, key=lambda each: each.identity)


def _goes_without_saying(identity: Identity, scope: Scope) -> bool:
    of_own_user = identity.kind in _OF_USERS and identity.name[0] == scope.user
    return is_rabbitrys(identity) or (of_own_user and identity.kind != USER)


def _reason(each: Object, scope: Scope) -> str | None:
    identity = each.identity
    if is_rabbitrys(identity):
        return "rabbitry's own bookkeeping"
    if identity.kind != VHOST and (why := _unspeakable(each)):
        return why
    if identity.kind in _OF_USERS and identity.name[0] == scope.user:
        return "the user that is logged in"
    if scope.everything:
        return None
    if (what := celery_owned(identity)) is not None:
        return f"Celery's own, for {what}; --all takes it in"
    owner = scope.records.holder(identity)
    if owner is None and identity.kind == POLICY:
        owner = owner_of(identity.name[0])
        owner = None if owner == scope.name else owner
    return None if owner is None else f"topology {owner!r} manages it; --all takes it in"


def _unspeakable(each: Object) -> str | None:
    """Return why the file cannot say an object, or None where it can."""
    identity = each.identity
    check: Callable[[str], str] = check_addressable
    if identity.kind in (EXCHANGE, QUEUE):
        check = check_name
    if identity.kind == QUEUE and each.attributes.get("exclusive"):
        return "exclusive: it goes with its connection"
    if identity.kind == QUEUE and not each.attributes["durable"]:
        return "neither durable nor exclusive, which RabbitMQ 4.3 denies"
    if identity.kind == VHOST_LIMIT and identity.name[0] not in _LIMITS:
        return "a limit that the file does not know"
    if identity.kind == BINDING:
        return None
    try:
        for name in identity.name:
            check(name)
    except ValueError as exc:
        return str(exc)
    return None


def _without_ends(kept: Objects) -> Iterator[LeftOut]:
    for identity in kept:
        if identity.kind != BINDING:
            continue
        source, kind, destination, *_ = identity.name
        ends = [(EXCHANGE, source), (QUEUE if kind == "queue" else EXCHANGE, destination)]
        for end, name in ends:
            is_built_in = end == EXCHANGE and name in BUILT_IN_EXCHANGES and name == source
            if not is_built_in and Identity(end, (name,)) not in kept:
                yield LeftOut(identity, f"the file does not name {end} {name!r}")
                break


def _without_user(kept: Objects) -> Iterator[LeftOut]:
    for identity in kept:
        belongs = identity.kind in _OF_USERS and identity.kind != USER
        if belongs and Identity(USER, identity.name[:1]) not in kept:
            yield LeftOut(identity, "its user is not read, which takes an administrator")


def default_name(records: list[str], policies: list[str], vhost: str) -> str:
    """Return the name that a file gets when nobody says one.

    Args:
        records: the owners that are recorded in the virtual host.
        policies: the owners of the generated policies there.
        vhost: the virtual host.
    """
    owners = sorted(set(records)) or sorted(set(policies))
    if len(owners) == 1:
        return owners[0]
    allowed = "".join(c if (c.isascii() and c.isalnum()) or c in "._-" else "-" for c in vhost)
    return allowed.strip("-")[:64] or "exported"
