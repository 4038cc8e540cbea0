"""One look at RabbitMQ for a topology: what it wants, what there is, whose it is, the plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from broker.management import Management
from broker.topology.changes import Plan
from broker.topology.compile import compile_topology
from broker.topology.counts import count_queues
from broker.topology.model import Topology
from broker.topology.objects import QUEUE, Desired, Identity, Observed
from broker.topology.observe import observe
from broker.topology.obsolete import Consent
from broker.topology.ownership import LOCK_NAME, Records, read_records
from broker.topology.plan import candidates, make_plan
from broker.topology.versions import losses, refuse_harmful

if TYPE_CHECKING:
    from broker.topology.replace import Replacement


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment."""

    desired: Desired
    observed: Observed
    records: Records
    plan: Plan


def look(topology: Topology, management: Management, *, consent: Consent | None = None) -> Look:
    """Read RabbitMQ once and compare; what queues hold is counted only where it decides.

    Args:
        topology: what is wanted.
        management: the management API; its address names the virtual host.
        consent: what may be deleted.

    Raises:
        TopologyError: a variable in the file is not set.
        UnsupportedBroker, Unreachable, AccessRefused: see `broker.errors`.
    """
    version = management.require(topology.broker.requires)
    refuse_harmful(topology, version)
    # The virtual host of the address: one that the URL names wins over the file's.
    desired = compile_topology(topology, vhost=management.address.vhost_name, version=version)
    records = read_records(management, desired.vhost, desired.owner)
    observed = observe(
        management,
        desired.vhost,
        version=version,
        named={*desired.objects, *records.own.objects},
    )
    records = records.living(observed.objects, exists=observed.exists)
    plan = make_plan(desired, observed, records=records, consent=consent)
    if names := candidates(plan):
        counts = count_queues(management, names)
        plan = make_plan(desired, observed, records=records, consent=consent, counts=counts)
    if topology.broker.requires is None:
        plan = replace(plan, warnings=(*plan.warnings, *losses(topology, version)))
    if at_work(observed):
        moment = "another apply is at work here: what is shown is a moment of it"
        plan = replace(plan, warnings=(*plan.warnings, moment))
    if records.known:
        plan = replace(plan, interrupted=tuple(interrupted(observed, desired.owner, management)))
    else:
        user = management.address.user
        unknown = (
            f"user {user!r} may not read whose objects are whose: that takes the tag policymaker;"
            " what the file no longer names is shown as nobody's"
        )
        plan = replace(plan, warnings=(*plan.warnings, unknown))
    return Look(desired, observed, records, plan)


def at_work(observed: Observed) -> bool:
    """Say whether an apply holds the lock."""
    return Identity(QUEUE, (LOCK_NAME,)) in observed.objects


def interrupted(observed: Observed, owner: str, management: Management) -> Iterator[Replacement]:
    """Yield the replacements that a topology has begun and not ended; one request."""
    from broker.topology.replace import is_void, pending

    if at_work(observed):
        # It is not interrupted, but under way.
        return
    for each in pending(management, observed.vhost, owner):
        if not is_void(each, observed.objects):
            yield each
