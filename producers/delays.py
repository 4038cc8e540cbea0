"""Delayed jobs as messages for RabbitMQ's delay ladder."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

from broker.body import Serializer
from broker.contracts import Contract, Job
from broker.delays import Delays, wait_s
from broker.errors import InvalidDelay
from broker.inherited import Parent
from broker.message import Message, job_message


def wait_of(job: Job, *, now_s: float) -> float:
    """Return how long a job is to wait, in seconds; 0 where it is due. Raises InvalidDelay."""
    return wait_s(delay_s=job.delay_s, eta=job.eta, now_s=now_s, what=f"job {job.name!r}")


def delayed_message(
    delays: Delays,
    contract: Contract,
    job: Job,
    *,
    wait: float,
    now_s: float,
    serializer: Serializer = "json",
    parent: Parent | None = None,
) -> tuple[Message, str]:
    """Write a job that is to wait; returns its message and the exchange to publish it to.

    Args:
        delays: of the topology.
        contract: the job's; its deadline counts from when the job is due.
        job: what to publish.
        wait: seconds.
        now_s: seconds since 1970-01-01 UTC.
        serializer: of the body.
        parent: the job within which this one is published, if any. It is for later, when nobody
            waits for that one any more: its deadline is none of this one's.

    Raises:
        InvalidDelay: the topology has no delays, none so long, or no queue takes the job.
        InvalidArguments, InvalidMessage: see `job_message`.
    """
    ladder = delays.ladder
    queues = delays.queues_of(contract.exchange, contract.routing_key)
    if not queues:
        raise InvalidDelay(
            f"job {job.name!r} would reach no queue when it is due: exchange"
            f" {contract.exchange!r}, routing key {contract.routing_key!r};"
            " `rabbitry topology route` shows the bindings"
        )
    if job.deadline_s is not None and job.deadline_s <= wait:
        raise InvalidDelay(
            f"job {job.name!r} would be past its deadline of {job.deadline_s:g} s when it is due"
            f" in {wait:g} s; make the one longer or the other shorter"
        )
    if job.deadline_s is None and contract.deadline_s is not None:
        job = replace(job, deadline_s=contract.deadline_s + math.ceil(wait))
    message = job_message(
        contract,
        job,
        published_ms=round(now_s * 1000),
        serializer=serializer,
        parent_id=None if parent is None else parent.id,
        root_id=None if parent is None else parent.root_id,
    )
    try:
        due = datetime.fromtimestamp(now_s + wait, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        due = None  # longer than any calendar: the ladder says how long it can be
    message = replace(message, headers={**message.headers, "eta": due})
    return ladder.delayed(message, wait_s=wait, queues=queues)
