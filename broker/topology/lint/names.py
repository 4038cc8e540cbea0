"""Rules about names that others use for themselves."""

from __future__ import annotations

from collections.abc import Iterator

from broker.reply_queue import is_reply_queue
from broker.topology.celery_names import celery_owned
from broker.topology.lint.finding import Finding, finding
from broker.topology.model import Topology
from broker.topology.objects import EXCHANGE, QUEUE, Identity


def check_values(topology: Topology) -> Iterator[Finding]:
    """Yield exchanges and queues that are named as Celery's own, and queues as a caller's."""
    for name in topology.queues:
        if is_reply_queue(name):
            yield finding(
                ("queues", name),
                "reply-name",
                "callers name the queues for their replies so, and no plan changes or deletes one;"
                " take another name",
                at_key=True,
            )
    for section, kind in (("exchanges", EXCHANGE), ("queues", QUEUE)):
        for name in getattr(topology, section):
            purpose = celery_owned(Identity(kind, (name,)))
            if purpose is not None:
                yield finding(
                    (section, name),
                    "celery-name",
                    f"Celery makes this {kind} itself, for {purpose}, with settings of its own;"
                    " take another name",
                    at_key=True,
                )
