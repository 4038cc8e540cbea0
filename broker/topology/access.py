"""Who may do what, as a topology file says it: users, permissions, limits."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from broker.topology.strict import Strict

Role = Literal["producer", "worker", "caller", "scheduler", "monitor", "provisioner"]
HashingAlgorithm = Literal[
    "rabbit_password_hashing_sha256",
    "rabbit_password_hashing_sha512",
    "rabbit_password_hashing_md5",
]
Limit = Annotated[int, Field(ge=-1)]


class Permissions(Strict):
    """Regular expressions (Erlang's, not anchored) of the names that a user may …"""

    configure: str = "^$"
    """declare and delete,"""
    write: str = "^$"
    """publish to and bind,"""
    read: str = "^$"
    """consume from and bind to."""


class TopicPermission(Strict):
    """Regular expressions of the routing keys on one topic exchange with which a user may …"""

    write: str = ".*"
    """publish,"""
    read: str = ".*"
    """bind."""


class UserLimits(Strict):
    """What RabbitMQ lets a user have at the same time; -1 is without end."""

    max_connections: Limit | None = None
    """Connections."""
    max_channels: Limit | None = None
    """Channels, over all connections."""


class User(Strict):
    """A user, and what it may do in the virtual host."""

    password: Annotated[str, Field(min_length=1)] | None = None
    """Its password, from the environment (`${VAR}`) or a file (`${file:PATH}`)."""
    password_hash: str | None = None
    """The hash of its password instead; empty for a user that logs in by certificate only.
    Without either the password stays as it is."""
    hashing_algorithm: HashingAlgorithm = "rabbit_password_hashing_sha256"
    """How `password_hash` was made, or `password` is hashed."""
    tags: list[str] | None = None
    """RabbitMQ's tags, such as management or administrator; those of the role when not given, or
    none."""
    role: Role | None = None
    """What it does with the jobs of this file: tags and permissions follow."""
    jobs: list[str] | None = None
    """The jobs that a producer, caller or scheduler publishes; all, when not given."""
    workers: list[str] | None = None
    """The workers that a user with the role `worker` runs; all, when not given."""
    permissions: Permissions | None = None
    """What it may do, when no role says it; none at all when neither does."""
    topic_permissions: dict[str, TopicPermission] = {}
    """Routing keys, by the name of the topic exchange."""
    limits: UserLimits = UserLimits()
    """How many connections and channels it may have."""
    protected: bool = False
    """Never deleted, also when it is gone from this file."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.password is not None and self.password_hash is not None:
            raise ValueError("it has both password and password_hash; keep one")
        if self.role is not None and self.permissions is not None:
            raise ValueError("it has both role and permissions; keep one")
        if self.jobs is not None and self.role not in ("producer", "caller", "scheduler"):
            raise ValueError("only a producer, a caller or a scheduler has jobs")
        if self.workers is not None and self.role != "worker":
            raise ValueError("only a user with role: worker has workers")
        return self
