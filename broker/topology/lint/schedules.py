"""Rules about schedules: that each of their ticks can be published."""

from __future__ import annotations

from collections.abc import Iterator

from broker.contracts import contract_of
from broker.errors import InvalidArguments, did_you_mean
from broker.topology.lint.finding import Finding, finding
from broker.topology.model import Topology


def check_values(topology: Topology) -> Iterator[Finding]:
    """Yield jobs that the file does not have, and arguments that they do not take."""
    for name, schedule in topology.schedules.items():
        if schedule.job not in topology.jobs:
            text = f"no job is named {schedule.job!r}{did_you_mean(schedule.job, topology.jobs)}"
            yield finding(("schedules", name, "job"), "unknown-job", text)
            continue
        try:
            contract_of(topology, schedule.job).check((), schedule.arguments)
        except InvalidArguments as exc:
            place = "arguments" if schedule.arguments else "job"
            yield finding(("schedules", name, place), "schedule-arguments", str(exc))
