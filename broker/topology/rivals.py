"""Which policies meet on an object: those that hide ours, and ours that are not in force; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from broker.topology.objects import POLICY, Desired, Object
from broker.topology.policies import APPLY_TO, PRIORITY

_TYPES = {apply_to: type_ for type_, apply_to in APPLY_TO.items()}


def not_in_force(
    policies: Iterable[Object], effective: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Yield the queues on which a generated policy exists but does not show.

    Args:
        policies: generated policies that RabbitMQ has.
        effective: the policy settings in force on each queue that exists.
    """
    for policy in policies:
        wanted = policy.attributes["definition"]
        for name in policy.covers:
            # Keys only: an operator policy may rightly lower a value.
            absent = sorted(wanted.keys() - effective.get(name, wanted).keys())
            if absent and policy.attributes["apply-to"] != APPLY_TO["exchange"]:
                yield (
                    f"{policy.identity} is not in force on queue {name!r}"
                    f" ({', '.join(absent)} missing): another policy hides it, or the queue has"
                    " another type"
                )


def hidden(desired: Desired, foreign: Iterable[Object]) -> Iterator[str]:
    """Yield which generated policies other policies of the virtual host would hide."""
    rivals = [
        each
        for each in foreign
        if each.identity.kind == POLICY and each.attributes["priority"] >= PRIORITY
    ]
    for policy in desired.objects.values() if rivals else ():
        type_ = type_of(policy)
        for name in policy.covers:
            for rival in rivals:
                if reaches(rival, type=type_, name=name):
                    yield (
                        f"{rival.identity} (priority {rival.attributes['priority']}) hides"
                        f" {policy.identity} (priority {PRIORITY}) on {type_} {name!r}: give it a"
                        " priority below, or a narrower pattern"
                    )


def type_of(policy: Object) -> str:
    """Return the one type of queue that a generated policy is for, or "exchange"."""
    return _TYPES.get(policy.attributes.get("apply-to", ""), "")


def reaches(policy: Object, *, type: str, name: str) -> bool:
    """Say whether the pattern of a policy or operator policy takes in an object.

    Args:
        policy: the policy.
        type: the object's: a type of queue, or "exchange".
        name: the object's.
    """
    wide = {"all", "exchanges"} if type == "exchange" else {"all", "queues"}
    if policy.attributes["apply-to"] not in wide | {APPLY_TO.get(type, "")}:
        return False
    found = expression(policy.attributes["pattern"])
    return found is not None and found.search(name) is not None


@lru_cache(maxsize=4096)
def expression(pattern: str) -> re.Pattern[str] | None:
    """Return a pattern of RabbitMQ's as Python's, or None where Python cannot read it."""
    try:
        return re.compile(pattern)
    except re.error:
        # Erlang's dialect knows more than Python's; what it matches stays unknown.
        return None
