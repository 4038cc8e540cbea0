"""The steps of a replacement, in order, and the names of what helps; pure.

A queue. Messages keep their way to it through a helper exchange, which hands each to exactly
one of its destinations:

    prepare   make the helpers
    attach    exchanges → switch → queue; then no longer exchanges → queue
    divert    switch → interim queue; then no longer switch → queue
    drain     consumers finish what they hold, what waits is moved aside
    swap      delete the empty queue, declare it as it is to be
    refill    move back what waited, then what came meanwhile
    restore   switch → queue again, then exchanges → queue, then no longer → switch
    settle    move the rest of the interim queue
    clean     delete the helpers and the record

An exchange. A stand-in of the new kind, bound like it, carries what other exchanges route:

    prepare   make the stand-in
    attach    stand-in → destinations; sources → stand-in; then no longer sources → exchange
    swap      delete the exchange, declare it as it is to be
    restore   exchange → stand-in, exchange → destinations, sources → exchange
    clean     delete the stand-in and the record
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.topology.objects import QUEUE, Identity
from broker.topology.ownership import REPLACE_PREFIX

QUEUE_STEPS = (
    "prepare",
    "attach",
    "divert",
    "drain",
    "swap",
    "refill",
    "restore",
    "settle",
    "clean",
)
EXCHANGE_STEPS = ("prepare", "attach", "swap", "restore", "clean")
# Once the queue or exchange is the new one, there is no way back but another replacement.
LAST_WITH_A_WAY_BACK = "swap"

# Above every policy of others, since at most one applies to an object.
POLICY_PRIORITY = 1_000_000
_NAME_LIMIT_BYTES = 255
_LONGEST_SUFFIX = len(".interim")

# Of what holds for the queue, its helpers need what becomes of a message that expires. Not its
# limits, for nothing may be refused on the way; not its time to live, which begins anew; not its
# expiry, for nobody consumes from a helper.
_KEPT = (
    "dead-letter-exchange",
    "dead-letter-routing-key",
    "dead-letter-strategy",
)


@dataclass(frozen=True, slots=True)
class Helpers:
    """The names of what helps to replace one object.

    Attributes:
        base: what all of them begin with; also the name of the policy and the stand-in.
    """

    base: str

    @classmethod
    def of(cls, identity: Identity) -> Helpers:
        """Return the helpers of a queue or exchange."""
        name = f"{REPLACE_PREFIX}{identity.kind}.{identity.name[0]}"
        if len(name.encode()) + _LONGEST_SUFFIX > _NAME_LIMIT_BYTES:
            digest = hashlib.sha256(identity.name[0].encode()).hexdigest()
            name = f"{REPLACE_PREFIX}{identity.kind}.{digest}"
        return cls(name)

    @property
    def policy(self) -> str:
        """The policy for the helpers."""
        return self.base

    @property
    def standin(self) -> str:
        """The exchange that stands in for the one that is replaced."""
        return self.base

    @property
    def switch(self) -> str:
        """The exchange that hands messages to the queue or to the interim queue."""
        return f"{self.base}.switch"

    @property
    def interim(self) -> str:
        """The queue for what is published meanwhile."""
        return f"{self.base}.interim"

    @property
    def aside(self) -> str:
        """The queue for what waited, and the exchange that leads to it."""
        return f"{self.base}.aside"

    @property
    def refill(self) -> str:
        """The exchange that leads to the new queue."""
        return f"{self.base}.refill"

    @property
    def names(self) -> tuple[str, ...]:
        """Of all queues and exchanges that help."""
        return (self.standin, self.switch, self.interim, self.aside, self.refill)


def steps_of(identity: Identity) -> tuple[str, ...]:
    """Return the steps of replacing an object, in order."""
    return QUEUE_STEPS if identity.kind == QUEUE else EXCHANGE_STEPS


def after(identity: Identity, step: str) -> str | None:
    """Return the step that follows, or None at the end."""
    steps = steps_of(identity)
    index = steps.index(step) + 1
    return steps[index] if index < len(steps) else None


def can_go_back(identity: Identity, step: str) -> bool:
    """Say whether a replacement that has come so far can be rolled back."""
    steps = steps_of(identity)
    return steps.index(step) <= steps.index(LAST_WITH_A_WAY_BACK)


def helper_settings(arguments: Mapping[str, Any], effective: Mapping[str, Any]) -> dict[str, Any]:
    """Return the policy for the helper queues of a queue.

    Args:
        arguments: of the queue, with ``x-``; they win over policies.
        effective: the policy settings in force on the queue.
    """
    settings = {
        key: value
        for key in _KEPT
        if (value := arguments.get(f"x-{key}", effective.get(key))) is not None
    }
    if settings.get("dead-letter-strategy") == "at-least-once":
        # RabbitMQ falls back to at-most-once without it.
        settings["overflow"] = "reject-publish"
    # A mover that is killed must not use up a message's deliveries.
    return {**settings, "delivery-limit": -1}
