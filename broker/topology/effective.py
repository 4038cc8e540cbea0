"""Which settings are in force on a queue or exchange, and where each comes from; pure.

RabbitMQ applies at most one policy and one operator policy to an object, the one with the
highest priority whose keys its type knows, merges the two, and then lets the argument, the
policy or the lower value win, by key. As read in and measured on RabbitMQ 4.3;
https://www.rabbitmq.com/docs/policies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.topology.objects import (
    EXCHANGE,
    OPERATOR_POLICY,
    POLICY,
    QUEUE,
    Identity,
    Object,
    Objects,
)
from broker.topology.settings import MASTER_LOCATOR, MIRRORING

# Where both name the key, the lower of policy and operator policy holds.
_LOWER_OF_POLICIES = frozenset(
    {"message-ttl", "max-length", "max-length-bytes", "max-in-memory-length", "expires"}
    | {"max-in-memory-bytes"}
)
# Where both name the key, the lower of policy and argument holds.
_LOWER_OF_ARGUMENT = frozenset(
    {"expires", "message-ttl", "max-length", "max-length-bytes", "consumer-disconnected-timeout"}
    | {"delayed-retry-min", "delayed-retry-max", "max-in-memory-length", "max-in-memory-bytes"}
    | {"consumer-timeout"}
)
# Of these the policy holds on quorum queues; of all others the argument.
_POLICY_FIRST = frozenset({"overflow", "delayed-retry-type"})
_ONLY_STREAMS = {"max-age", "stream-max-segment-size-bytes", "initial-cluster-size"}
_MIRRORING = {"queue-mode", MASTER_LOCATOR, *MIRRORING}
# A policy with one of these does not apply to a queue of the type at all.
UNKNOWN_TO: Mapping[str, frozenset[str]] = {
    "quorum": frozenset({"max-priority", *_MIRRORING, *_ONLY_STREAMS}),
    "classic": frozenset(
        {"delivery-limit", "dead-letter-strategy", "target-group-size", *_ONLY_STREAMS}
        | {"max-in-memory-length", "max-in-memory-bytes"}
    ),
    "stream": frozenset(
        {"expires", "message-ttl", "dead-letter-exchange", "dead-letter-routing-key"}
        | {"max-length", "max-in-memory-length", "max-in-memory-bytes", "max-priority"}
        | {"overflow", "delivery-limit", *_MIRRORING}
    ),
}
# What RabbitMQ does where nothing is said.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "quorum": {"delivery-limit": 20, "consumer-timeout": 1_800_000, "overflow": "drop-head"},
    "classic": {"overflow": "drop-head", "consumer-timeout": 1_800_000},
    "stream": {},
}
_APPLY_TO = {
    "quorum": {"all", "queues", "quorum_queues"},
    "classic": {"all", "queues", "classic_queues"},
    "stream": {"all", "queues", "streams"},
    EXCHANGE: {"all", "exchanges"},
}


@dataclass(frozen=True, slots=True)
class Said:
    """One place that gives a setting a value.

    Attributes:
        value: as RabbitMQ has it.
        by: the policy that says it; None for an argument or RabbitMQ's default.
        argument: whether an argument says it.
    """

    value: Any
    by: Object | None = None
    argument: bool = False

    @property
    def origin(self) -> str:
        """The place in words."""
        if self.by is not None:
            return str(self.by.identity)
        return "argument" if self.argument else "RabbitMQ's default"


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting in force: the key without ``x-``, what holds, and what gave way to it."""

    key: str
    holds: Said
    gave_way: tuple[Said, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """The policies whose pattern, kind and keys fit an object, the one in force first.

    Attributes:
        policies, operator_policies: by falling priority.
        unfit: policies that match but have keys that the object's type does not know.
    """

    policies: tuple[Object, ...] = ()
    operator_policies: tuple[Object, ...] = ()
    unfit: tuple[Object, ...] = ()

    @property
    def policy(self) -> Object | None:
        """The policy in force."""
        return self.policies[0] if self.policies else None

    @property
    def operator_policy(self) -> Object | None:
        """The operator policy in force."""
        return self.operator_policies[0] if self.operator_policies else None


class Policies:
    """All policies of a virtual host, ready to be asked which of them apply to an object."""

    def __init__(self, objects: Objects) -> None:
        self._listed: dict[tuple[str, str], list[Object]] = {}
        self._others: list[tuple[Object, re.Pattern[str] | None]] = []
        for each in objects.values():
            if each.identity.kind not in (POLICY, OPERATOR_POLICY):
                continue
            # A generated policy lists its names: no need to try thousands of patterns.
            for name in each.covers:
                self._listed.setdefault((str(each.attributes["apply-to"]), name), []).append(each)
            if not each.covers:
                self._others.append((each, expression(str(each.attributes["pattern"]))))

    def of(self, name: str, type_: str) -> Match:
        """Return the policies of an object.

        Args:
            name: of the queue or exchange.
            type_: quorum, classic, stream, or "exchange" for any exchange.
        """
        apply_to = _APPLY_TO.get(type_, {"all", "queues"})
        found = [each for to in apply_to for each in self._listed.get((to, name), ())]
        found += [
            each
            for each, pattern in self._others
            if each.attributes["apply-to"] in apply_to
            and pattern is not None
            and pattern.search(name)
        ]
        unknown = UNKNOWN_TO.get(type_, frozenset())
        fit = [each for each in found if not unknown & each.attributes["definition"].keys()]
        fit.sort(key=lambda each: (-each.attributes["priority"], each.identity))
        return Match(
            tuple(each for each in fit if each.identity.kind == POLICY),
            tuple(each for each in fit if each.identity.kind == OPERATOR_POLICY),
            tuple(each for each in found if each not in fit),
        )


def type_of(there: Object) -> str:
    """Return the type of a queue, or "exchange"."""
    return str(there.attributes["type"]) if there.identity.kind == QUEUE else EXCHANGE


def settings_of(there: Object, policies: Policies) -> dict[str, Setting]:
    """Return the settings in force on a queue or exchange, by key, without RabbitMQ's defaults."""
    match = policies.of(there.identity.name[0], type_of(there))
    return _in_force(there, match)


def _in_force(there: Object, match: Match) -> dict[str, Setting]:
    type_ = type_of(there)
    said: dict[str, Setting] = {}
    for policy in filter(None, (match.policy, match.operator_policy)):
        for key, value in policy.attributes["definition"].items():
            new = Said(value, by=policy)
            said[key] = _joined(key, said[key].holds, new) if key in said else Setting(key, new)
    for argument, value in there.attributes["arguments"].items():
        key = argument.removeprefix("x-") if there.identity.kind == QUEUE else argument
        new = Said(value, argument=True)
        said[key] = _with_argument(said[key], new, type_) if key in said else Setting(key, new)
    return dict(sorted(said.items()))


def merged(match: Match) -> dict[str, Any]:
    """Return what the policy and the operator policy in force come to together."""
    there = Object(Identity(QUEUE, ("",)), {"type": "", "arguments": {}})
    return {key: setting.holds.value for key, setting in _in_force(there, match).items()}


def value_of(settings: Mapping[str, Setting], key: str, default: Any = None) -> Any:
    """Return the value in force, or a default where nothing says one."""
    return settings[key].holds.value if key in settings else default


def expression(pattern: str) -> re.Pattern[str] | None:
    """Return a policy's pattern, or None where Python cannot read Erlang's dialect."""
    try:
        return re.compile(pattern)
    except re.error:
        return None


def find(objects: Objects, kind: str, name: str) -> Object | None:
    """Return a queue or exchange by its name."""
    return objects.get(Identity(kind, (name,)))


def _joined(key: str, user: Said, operator: Said) -> Setting:
    wins = False
    if all(isinstance(each.value, int) for each in (user, operator)):
        if key == "delivery-limit" and min(user.value, operator.value) < 0:
            # -1 is "for ever": the other, whatever it is, holds.
            wins = user.value > operator.value
        elif key in _LOWER_OF_POLICIES or key == "delivery-limit":
            wins = user.value < operator.value
    return Setting(key, user, (operator,)) if wins else Setting(key, operator, (user,))


def _with_argument(by_policy: Setting, argument: Said, type_: str) -> Setting:
    key, policy = by_policy.key, by_policy.holds
    if key in _LOWER_OF_ARGUMENT or key == "delivery-limit":
        comparable = all(isinstance(each.value, int) for each in (policy, argument))
        higher = key == "delivery-limit" and comparable and min(policy.value, argument.value) < 0
        if higher:
            wins = policy.value >= argument.value
        else:
            wins = not comparable or policy.value <= argument.value
    else:
        wins = type_ == "quorum" and key in _POLICY_FIRST
    if wins:
        return Setting(key, policy, (*by_policy.gave_way, argument))
    return Setting(key, argument, (policy, *by_policy.gave_way))
