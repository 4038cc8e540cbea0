"""Objects of RabbitMQ that rabbitry needs for itself: ladders, tokens, cancellations; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.topology.objects import (
    BINDING,
    EXCHANGE,
    POLICY,
    QUEUE,
    Identity,
    Object,
    binding_identity,
)
from broker.topology.policies import APPLY_TO, escape
from broker.topology.settings import QUORUM
from broker.topology.source import DataPath

# Above whatever people give a policy for all queues, since what it says would lose messages of
# these: a time to live, a length, a limit of deliveries.
PRIORITY = 1000


@dataclass(frozen=True, slots=True)
class Own:
    """Makes the objects that one part of the file needs.

    Attributes:
        path: the part of the file that they are there for.
    """

    path: DataPath

    def exchange(self, name: str, type_: str, arguments: Mapping[str, Any] | None = None) -> Object:
        """Return a durable exchange."""
        return Object(
            Identity(EXCHANGE, (name,)),
            {
                "type": type_,
                "durable": True,
                "auto_delete": False,
                "internal": False,
                "arguments": dict(arguments or {}),
            },
            self.path,
        )

    def queue(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, type_: str = QUORUM
    ) -> Object:
        """Return a durable queue."""
        return Object(
            Identity(QUEUE, (name,)),
            {
                "type": type_,
                "durable": True,
                "auto_delete": False,
                "arguments": dict(arguments or {}),
            },
            self.path,
        )

    def binding(
        self,
        source: str,
        kind: str,
        destination: str,
        *,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> Object:
        """Return a binding to a destination of this kind."""
        identity = binding_identity(
            source=source,
            kind=kind,
            destination=destination,
            routing_key=routing_key,
            arguments=dict(arguments or {}),
        )
        return Object(identity, {}, self.path)

    def policy(
        self,
        name: str,
        definition: Mapping[str, Any],
        *,
        pattern: str | None = None,
        type_: str = QUORUM,
    ) -> Object:
        """Return a policy for the queues of one type, of `PRIORITY`.

        Args:
            name: of the policy, and of the one queue that it is for where there is no `pattern`.
            definition: what it says.
            pattern: an expression that matches the whole names of the queues.
            type_: of the queues.
        """
        return Object(
            Identity(POLICY, (name,)),
            {
                "apply-to": APPLY_TO[type_],
                "pattern": f"^{escape(name) if pattern is None else pattern}$",
                "priority": PRIORITY,
                "definition": dict(definition),
            },
            self.path,
        )


def belongs(identity: Identity, *, exchange: str, others: frozenset[str]) -> bool:
    """Return whether an object is a binding of this exchange, or has one of these names."""
    if identity.kind == BINDING:
        return identity.name[0] == exchange
    return identity.name[0] in others
