"""Rules about stored results, and about what runs code of the sender's."""

from __future__ import annotations

from collections.abc import Iterator

from broker.topology.lint.finding import Finding, finding
from broker.topology.model import Topology


def check_values(topology: Topology) -> Iterator[Finding]:
    """Yield jobs whose result nobody keeps, and pickle."""
    if topology.results is None:
        for name, job in topology.jobs.items():
            if job.store:
                text = (
                    "the file does not say where results are kept; add results: {backend:"
                    " redis://HOST:6379/0} to it, or leave this out"
                )
                yield finding(("jobs", name, "store"), "store-nowhere", text, at_key=True)
    elif topology.results.serializer == "pickle" and "pickle" not in topology.accept:
        text = "pickle is read only where the file says accept: [pickle]"
        yield finding(("results", "serializer"), "pickle-not-accepted", text)
    for index, serializer in enumerate(topology.accept):
        if serializer == "pickle":
            text = (
                "whoever may publish to a queue of the workers, or write to the Redis of their"
                " results, can run any code in them"
            )
            yield finding(("accept", index), "accepts-pickle", text)
