"""Passwords of users: compared by RabbitMQ's hashes, never as they are; pure.

https://www.rabbitmq.com/docs/passwords: base64 of four bytes of salt and the hash of salt and
password.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import replace

from broker.topology.objects import USER, Object

_SALT_BYTES = 4
_PREFIX = "rabbit_password_hashing_"


def hashed(password: str, *, algorithm: str, salt: bytes) -> str:
    """Return RabbitMQ's hash of a password.

    Args:
        password: in plain text.
        algorithm: RabbitMQ's name of it, such as ``rabbit_password_hashing_sha256``.
        salt: four bytes.
    """
    digest = hashlib.new(algorithm.removeprefix(_PREFIX), usedforsecurity=False)
    digest.update(salt + password.encode())
    return base64.b64encode(salt + digest.digest()).decode()


def salt_for(user: str, password: str) -> bytes:
    """Return a salt of its own for each user and password, the same each time."""
    return hashlib.sha256(f"{user}\0{password}".encode()).digest()[:_SALT_BYTES]


def matches(password: str, stored: str, *, algorithm: str) -> bool:
    """Return whether a stored hash is of this password."""
    try:
        salt = base64.b64decode(stored, validate=True)[:_SALT_BYTES]
    except (binascii.Error, ValueError):
        return False
    return len(salt) == _SALT_BYTES and hashed(password, algorithm=algorithm, salt=salt) == stored


def settled(wanted: Object, there: Object | None) -> Object:
    """Return the wanted object with the hash that RabbitMQ has, where it is of its password."""
    if wanted.identity.kind != USER or wanted.password is None or there is None:
        return wanted
    algorithm = wanted.attributes["hashing_algorithm"]
    stored = there.attributes.get("password_hash", "")
    if there.attributes.get("hashing_algorithm") != algorithm or not matches(
        wanted.password, stored, algorithm=algorithm
    ):
        return wanted
    return replace(wanted, attributes={**wanted.attributes, "password_hash": stored})
