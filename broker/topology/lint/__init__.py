"""What is wrong with a topology although each value alone is right; pure.

Two rounds: rules about single values first. Where they find no error the file can be compiled,
and the second round looks at what comes of it: where messages go, which policy is in force.
"""

from __future__ import annotations

from broker.topology.lint import (
    exchanges,
    jobs,
    names,
    policies,
    queues,
    results,
    schedules,
    secrets,
    switched_off,
    versions,
    workers,
)
from broker.topology.lint.finding import RULES, Finding, Rule
from broker.topology.lint.view import View
from broker.topology.model import Topology

__all__ = ["RULES", "Finding", "Rule", "check"]


def check(topology: Topology) -> list[Finding]:
    """Return the findings about a topology, without those that it switches off."""
    found = [
        *names.check_values(topology),
        *exchanges.check_values(topology),
        *queues.check_values(topology),
        *jobs.check_values(topology),
        *workers.check_values(topology),
        *schedules.check_values(topology),
        *results.check_values(topology),
        *policies.check_values(topology),
        *versions.check_values(topology),
        *secrets.check_values(topology),
        *switched_off.check_values(topology),
    ]
    if any(each.level == "error" and RULES[each.rule].fixed for each in found):
        # What cannot be compiled yet cannot be looked into; nor is it known what is unused.
        return found
    view = View(topology)
    for module in (exchanges, queues, jobs, workers, policies):
        found += module.check(view)
    return [*switched_off.without(topology, dict.fromkeys(found))]
