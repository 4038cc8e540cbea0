"""From a topology's users to the objects they come to: users, rights, limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from broker.topology.access import User, UserLimits
from broker.topology.model import Topology
from broker.topology.objects import (
    PERMISSION,
    TOPIC_PERMISSION,
    USER,
    USER_LIMIT,
    Identity,
    Object,
)
from broker.topology.operation import Limits
from broker.topology.passwords import hashed, salt_for
from broker.topology.references import References
from broker.topology.roles import rights_of


def access_objects(
    topology: Topology, references: References, requires: str | None
) -> Iterator[Object]:
    """Yield users and what belongs to them, for a least version of RabbitMQ; None is the newest."""
    for name, user in topology.users.items():
        path = ("users", name)
        rights = rights_of(topology, user, requires=requires)
        yield _user(name, user, None if rights is None else rights.tags, references)
        for limit, value in limits_of(user.limits):
            identity = Identity(USER_LIMIT, (name, limit))
            yield Object(identity, {"value": value}, (*path, "limits"))
        permissions = rights or user.permissions
        if permissions is not None:
            found = {
                key: references.resolved(getattr(permissions, key), (*path, "permissions", key))
                for key in ("configure", "write", "read")
            }
            yield Object(Identity(PERMISSION, (name,)), found, path)
        for exchange, topic in user.topic_permissions.items():
            here = (*path, "topic_permissions", exchange)
            found = {
                key: references.resolved(getattr(topic, key), (*here, key))
                for key in ("write", "read")
            }
            yield Object(Identity(TOPIC_PERMISSION, (name, exchange)), found, here)


def limits_of(limits: Limits | UserLimits) -> Iterator[tuple[str, int]]:
    """Yield the limits that are set, by RabbitMQ's names."""
    for name in type(limits).model_fields:
        if (value := getattr(limits, name)) is not None:
            yield name.replace("_", "-"), value


def _user(
    name: str, user: User, role_tags: tuple[str, ...] | None, references: References
) -> Object:
    path = ("users", name)
    attributes: dict[str, Any] = {}
    # Always compared: a tag that somebody gave by hand makes an administrator of a worker.
    tags = user.tags if user.tags is not None else role_tags or ()
    # A set to RabbitMQ: their order means nothing.
    attributes["tags"] = sorted(set(references.resolved(tags, (*path, "tags"))))
    password: str | None = None
    if user.password_hash is not None:
        attributes["password_hash"] = references.resolved(
            user.password_hash, (*path, "password_hash")
        )
        attributes["hashing_algorithm"] = user.hashing_algorithm
    elif user.password is not None and references.environ is not None:
        password = references.resolved(user.password, (*path, "password"))
        algorithm = user.hashing_algorithm
        salt = salt_for(name, password)
        attributes["password_hash"] = hashed(password, algorithm=algorithm, salt=salt)
        attributes["hashing_algorithm"] = algorithm
    return Object(
        Identity(USER, (name,)),
        attributes,
        path,
        protected=user.protected,
        password=password,
    )
