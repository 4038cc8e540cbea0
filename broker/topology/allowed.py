"""What must hold before the first write: tags, rights on names, features and plugins.

An administrator may read permissions, so they are read. Anybody else is asked to do what
changes nothing: to declare a queue with an argument that no queue takes (403 without the right,
406 with it), and to undo a binding that does not exist.
https://www.rabbitmq.com/docs/access-control#authorisation
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator
from typing import Literal

from broker.connection import connect, translated
from broker.errors import AccessRefused, UnsupportedBroker
from broker.management import Management
from broker.topology.changes import Change, Plan
from broker.topology.features import lacking
from broker.topology.objects import (
    BINDING,
    EXCHANGE,
    GLOBAL_PARAMETER,
    OPERATOR_POLICY,
    PARAMETER,
    PERMISSION,
    POLICY,
    QUEUE,
    TOPIC_PERMISSION,
    USER,
    USER_LIMIT,
    VHOST,
    VHOST_LIMIT,
    Identity,
)
from broker.topology.ownership import LOCK_NAME
from broker.topology.source import Source

Right = Literal["configure", "write", "read"]

ADMINISTRATOR, POLICYMAKER = "administrator", "policymaker"
_ADMINISTRATORS = frozenset({ADMINISTRATOR})
_POLICYMAKERS = frozenset({ADMINISTRATOR, POLICYMAKER})
_TAGS = {
    **dict.fromkeys(
        (VHOST, VHOST_LIMIT, USER, USER_LIMIT, PERMISSION, TOPIC_PERMISSION, OPERATOR_POLICY),
        _ADMINISTRATORS,
    ),
    **dict.fromkeys((POLICY, PARAMETER, GLOBAL_PARAMETER), _POLICYMAKERS),
}
# Asking takes a millisecond a name; beyond this the write itself tells.
_ASKED_AT_MOST = 1_000
_RESOURCE = {EXCHANGE: "exchange", QUEUE: "queue"}


def check_allowed(
    plan: Plan, management: Management, *, replaces: bool = True, source: Source | None = None
) -> frozenset[str]:
    """Check that the user may do what a plan says, and RabbitMQ takes it; return the user's tags.

    Args:
        plan: what is to be done.
        management: the management API.
        replaces: whether that is so of its replacements.
        source: where the objects stand in the file.

    Raises:
        AccessRefused: names the user, and the tag or the permission it lacks.
        UnsupportedBroker: RabbitMQ denies a feature that the plan needs, or lacks a plugin.
    """
    held = tags_of(management)
    pending = [
        change
        for change in plan.changes
        if not change.hindrance and (replaces or change.action != "replace")
    ]
    user = management.address.user
    for change in pending:
        wanted = _TAGS.get(change.identity.kind)
        if wanted and not held & wanted:
            raise AccessRefused(
                f"user {user!r} may not {change.action} {change.identity}: it"
                f" needs the tag {' or '.join(sorted(wanted))}; nothing was written"
            )
    if not held & _POLICYMAKERS:
        raise AccessRefused(
            f"user {user!r} may not record on RabbitMQ what topology {plan.owner!r} manages: it"
            " needs the tag administrator or policymaker; nothing was written"
        )
    for text in lacking(pending, management, source=source):
        raise UnsupportedBroker(f"{text}; nothing was written")
    made = any(change.identity.kind == VHOST and change.action == "create" for change in pending)
    if plan.exists and not made:
        # Who creates a virtual host may do everything in it.
        _check_rights(dict.fromkeys(_needed(pending)), plan.vhost, management, held)
    return held


def tags_of(management: Management) -> frozenset[str]:
    """Return the tags of the user that is logged in."""
    tags = management.get("whoami")["tags"]
    # RabbitMQ 3 wrote them with commas.
    return frozenset(tags.split(",") if isinstance(tags, str) else tags)


def _needed(changes: Iterable[Change]) -> Iterator[tuple[Right, Identity]]:
    for change in changes:
        identity = change.identity
        if identity.kind in (EXCHANGE, QUEUE):
            yield "configure", identity
        elif identity.kind == BINDING:
            source, kind, destination, *_ = identity.name
            yield "write", Identity(kind, (destination,))
            yield "read", Identity(EXCHANGE, (source,))
    yield "configure", Identity(QUEUE, (LOCK_NAME,))


def _check_rights(
    needed: Iterable[tuple[Right, Identity]],
    vhost: str,
    management: Management,
    held: frozenset[str],
) -> None:
    user = management.address.user
    if ADMINISTRATOR in held:
        found = management.find("permissions", vhost, user)
        if found is None:
            raise AccessRefused(
                f"user {user!r} has no permissions in virtual host {vhost!r}; `rabbitmqctl"
                f" set_permissions` gives them; nothing was written"
            )
        for right, identity in needed:
            if not _matches(found[right], identity.name[0]):
                raise _refused(user, right, identity, vhost, f" ({found[right]!r})")
        return
    for right, identity in _not_granted(list(needed)[:_ASKED_AT_MOST], management):
        raise _refused(user, right, identity, vhost, "")


def _refused(user: str, right: str, identity: Identity, vhost: str, is_: str) -> AccessRefused:
    return AccessRefused(
        f"user {user!r} may not {right} {identity} in virtual host {vhost!r}: let the {right}"
        f" expression of its permissions{is_} match the name; nothing was written"
    )


def _matches(pattern: str, name: str) -> bool:
    # To RabbitMQ an empty expression matches nothing.
    try:
        return re.search(pattern, name) is not None if pattern else not name
    except re.error:
        # Erlang's dialect knows more than Python's: the write itself will tell.
        return True


def _not_granted(
    needed: Iterable[tuple[Right, Identity]], management: Management
) -> Iterator[tuple[Right, Identity]]:
    import amqp.exceptions

    address = management.address
    nowhere = f"rabbitry.{uuid.uuid4().hex}"
    connection = connect(address)
    try:
        for right, identity in needed:
            name = identity.name[0]
            channel = connection.channel()
            try:
                if right == "configure":
                    # Refused for its argument, so that nothing is made.
                    arguments = {"x-queue-type": "classic", "x-message-ttl": -1}
                    channel.queue_declare(name, durable=True, arguments=arguments)
                elif right == "read":
                    channel.queue_unbind(nowhere, name, routing_key=nowhere)
                elif identity.kind == QUEUE:
                    channel.queue_unbind(name, "amq.direct", routing_key=nowhere)
                else:
                    channel.exchange_unbind(name, "amq.direct", routing_key=nowhere)
            except amqp.exceptions.AccessRefused as exc:
                # One request can need two rights; the one in question is named.
                if f"{right} access to {_RESOURCE[identity.kind]} '{name}'" in str(exc) or (
                    right == "configure"
                ):
                    yield right, identity
            except amqp.exceptions.ChannelError:
                # The argument, a lock, or nothing there to unbind: the right is there.
                pass
            finally:
                if channel.is_open:
                    with translated(address):
                        channel.close()
    finally:
        connection.release()
