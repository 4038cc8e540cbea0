"""Rules about hand-written policies: that they apply, to what they mean, and alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from broker.topology.effective import UNKNOWN_TO, Match, expression, type_of
from broker.topology.lint.finding import Finding, finding
from broker.topology.lint.queues import ignored, removed
from broker.topology.lint.view import View
from broker.topology.model import OperatorPolicy, Policy, Topology
from broker.topology.objects import EXCHANGE, OPERATOR_POLICY, POLICY, QUEUE, Identity, Object
from broker.topology.policies import owner_of
from broker.topology.source import DataPath

_SECTIONS = {"policies": POLICY, "operator_policies": OPERATOR_POLICY}
_EVERYTHING = ("", ".*", ".+")


def check_values(topology: Topology) -> Iterator[Finding]:
    """Yield what is wrong with single policies and other patterns."""
    for section, name, policy in _written(topology):
        path: DataPath = (section, name)
        if owner_of(name) is not None:
            text = "the name is that of a generated policy, which rabbitry would delete"
            yield finding(path, "policy-name", text, at_key=True)
        for key, value in policy.definition.items():
            if why := removed(key):
                yield finding((*path, "definition", key), "removed-key", why, at_key=True)
            elif why := ignored(key, value):
                yield finding((*path, "definition", key), "ignored-value", why)
        if policy.pattern not in _EVERYTHING and not policy.pattern.startswith("^"):
            yield finding(
                (*path, "pattern"),
                "not-anchored",
                f"{policy.pattern!r} matches anywhere in a name; begin it with ^ and, unless it"
                " means a beginning, end it with $",
            )
    for name, user in topology.users.items():
        if user.permissions is None:
            continue
        for right in ("configure", "write", "read"):
            pattern = getattr(user.permissions, right)
            closed = pattern.startswith("^") and pattern.endswith(("$", ".*", ".+"))
            if pattern not in _EVERYTHING and not closed:
                yield finding(
                    ("users", name, "permissions", right),
                    "not-anchored",
                    f"{pattern!r} gives rights on every name that holds it; write ^…$ around it",
                )


def _written(topology: Topology) -> Iterator[tuple[str, str, Policy | OperatorPolicy]]:
    for section in _SECTIONS:
        for name, policy in getattr(topology, section).items():
            yield section, name, policy


# -- what takes the whole file --------------------------------------------------------


@dataclass(slots=True)
class _Use:
    """What a policy does: where it is in force, behind whom it stands, what it does not fit."""

    in_force: list[str] = field(default_factory=list)
    behind: dict[str, Object] = field(default_factory=dict)
    unfit: dict[str, str] = field(default_factory=dict)


def check(view: View) -> Iterator[Finding]:
    """Yield policies that hide one another, tie, match nothing or do not fit."""
    written = {
        Identity(_SECTIONS[section], (name,)): (section, policy)
        for section, name, policy in _written(view.topology)
    }
    if not written:
        return
    uses: Mapping[Identity, _Use] = {identity: _Use() for identity in written}
    for there in view.objects.values():
        if there.identity.kind not in (QUEUE, EXCHANGE):
            continue
        match = view.router.policies.of(there.identity.name[0], type_of(there))
        yield from _ranks(there, match.policies, match.operator_policies, written, uses)
        _note_unfit(there, match, uses)
    for identity, use in uses.items():
        section, policy = written[identity]
        path: DataPath = (section, identity.name[0])
        for name, words in use.unfit.items():
            text = f"it does not apply to queue {name!r} at all: {words}"
            yield finding((*path, "definition"), "policy-key-for-type", text, at_key=True)
        if use.in_force:
            continue
        if use.behind:
            name, rival = next(iter(use.behind.items()))
            text = f"it is in force nowhere: {rival.identity} comes first, as on {name!r}"
            yield finding(path, "policy-shadowed", text, at_key=True)
        elif not use.unfit and expression(policy.pattern) is not None:
            text = "no queue or exchange of the file has such a name and kind"
            yield finding((*path, "pattern"), "policy-matches-nothing", text)


def _ranks(
    there: Object,
    policies: tuple[Object, ...],
    operator_policies: tuple[Object, ...],
    written: Mapping[Identity, object],
    uses: Mapping[Identity, _Use],
) -> Iterator[Finding]:
    name = there.identity.name[0]
    for ranked in (policies, operator_policies):
        for index, policy in enumerate(ranked):
            use = uses.get(policy.identity)
            equal = policy.attributes["priority"] == ranked[0].attributes["priority"]
            if use is not None and (index == 0 or equal):
                use.in_force.append(name)
            elif use is not None:
                use.behind[name] = ranked[0]
        if len(ranked) < 2:
            continue
        first, second = ranked[:2]
        hidden = next((each for each in ranked[1:] if each.covers), None)
        if hidden is not None and first.identity in written:
            yield finding(
                first.path or ("policies", first.identity.name[0]),
                "policy-hides-generated",
                f"{first.identity} (priority {first.attributes['priority']}) hides"
                f" {hidden.identity} (priority {hidden.attributes['priority']}) on"
                f" {there.identity}: give it a lower priority or a narrower pattern",
                at_key=True,
            )
        elif first.attributes["priority"] == second.attributes["priority"]:
            yield finding(
                second.path or ("policies", second.identity.name[0]),
                "policy-tie",
                f"{first.identity} and {second.identity} both match {there.identity} with priority"
                f" {first.attributes['priority']}: which one applies is undefined",
                at_key=True,
            )


def _note_unfit(there: Object, match: Match, uses: Mapping[Identity, _Use]) -> None:
    type_ = type_of(there)
    for policy in match.unfit:
        if policy.identity in uses:
            keys = sorted(UNKNOWN_TO[type_] & policy.attributes["definition"].keys())
            words = f"a {type_} queue does not know {', '.join(keys)}"
            uses[policy.identity].unfit[there.identity.name[0]] = words
