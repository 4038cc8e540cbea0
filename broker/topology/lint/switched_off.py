"""The rules that a file switches off, with its reasons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from broker.errors import did_you_mean
from broker.topology.lint.finding import RULES, Finding, finding
from broker.topology.model import Topology
from broker.topology.source import DataPath


def check_values(topology: Topology) -> Iterator[Finding]:
    """Yield rules that do not exist, or that cannot be switched off."""
    for index, each in enumerate(topology.lint.ignore):
        here = ("lint", "ignore", index, "rule")
        if each.rule not in RULES:
            text = f"no rule is named {each.rule!r}{did_you_mean(each.rule, RULES)}"
            yield finding(here, "lint-rule", text)
        elif RULES[each.rule].fixed:
            text = f"{each.rule} cannot be switched off: the file could not be used as it stands"
            yield finding(here, "lint-rule", text)


def without(topology: Topology, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield the findings that are not switched off, and what switches nothing off."""
    ignored = topology.lint.ignore
    used: set[int] = set()
    for each in findings:
        matching = {
            index
            for index, ignore in enumerate(ignored)
            if ignore.rule == each.rule and (ignore.on is None or _is_on(ignore.on, each.path))
        }
        used |= matching
        if not matching or RULES[each.rule].fixed:
            yield each
    for index, ignore in enumerate(ignored):
        if index not in used:
            where = "" if ignore.on is None else f" on {ignore.on}"
            text = f"{ignore.rule} has nothing to say{where}; take this away"
            yield finding(("lint", "ignore", index), "lint-unused", text)


def _is_on(place: str, path: DataPath) -> bool:
    # Part by part: `queues.jobs` is not around `queues.jobs.low`, which is another queue.
    parts = [str(part) for part in path]
    return any(place == ".".join(parts[:length]) for length in range(1, len(parts) + 1))
