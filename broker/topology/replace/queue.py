"""The steps of replacing a queue; each may be done again after it was killed half-way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from broker.errors import ProvisioningFailed
from broker.topology.objects import EXCHANGE, QUEUE, Identity, Object
from broker.topology.observe import read_effective, read_kind
from broker.topology.plan import Change, differences
from broker.topology.policies import pattern
from broker.topology.replace import record
from broker.topology.replace.bindings import into, link, redirected
from broker.topology.replace.drain import drain, empty
from broker.topology.replace.record import Replacement
from broker.topology.replace.shovel import finish_shovel
from broker.topology.replace.site import Site
from broker.topology.replace.steps import POLICY_PRIORITY, Helpers, helper_settings
from broker.topology.write import write

# Rounds of moving what producers publish meanwhile, before the way is opened again.
_ROUNDS = 5
_FEW = 100
_LIMITS = ("max-length", "max-length-bytes")


def begin(site: Site, change: Change, owner: str) -> Replacement:
    """Return what is to be done for a change; nothing is written.

    Raises:
        ProvisioningFailed: this cannot be replaced without loss.
    """
    assert change.before is not None
    assert change.after is not None
    identity, before = change.identity, change.before.attributes
    for reason, holds in (
        ("its messages are never taken out of a stream", before.get("type") == "stream"),
        ("it belongs to one connection, and is gone with it", before.get("exclusive")),
    ):
        if holds:
            raise ProvisioningFailed(
                f"{identity} cannot be replaced without losing messages: {reason}; delete it by"
                " hand when nobody needs it, and apply creates it",
                object=str(identity),
                reason=reason,
            )
    effective = _in_force(site, identity.name[0])
    return Replacement(
        owner=owner,
        vhost=site.vhost,
        identity=identity,
        before=before,
        after=change.after.attributes,
        step="prepare",
        settings=helper_settings(before.get("arguments") or {}, effective),
    )


def prepare(site: Site, it: Replacement) -> Replacement:
    """Make the helpers, and find out whether RabbitMQ takes the new queue at all."""
    helpers, management = Helpers.of(it.identity), site.management
    trial = f"{helpers.base}.trial"
    _declare(site, Object(Identity(QUEUE, (trial,)), it.after))
    management.delete("queues", site.vhost, trial)
    queues = (helpers.interim, helpers.aside)
    body = {
        "pattern": pattern(queues),
        "apply-to": "quorum_queues",
        "priority": POLICY_PRIORITY,
        "definition": dict(it.settings),
    }
    management.put("policies", site.vhost, helpers.policy, body=body)
    for name in queues:
        attributes = {"type": "quorum", "durable": True, "auto_delete": False, "arguments": {}}
        _declare(site, Object(Identity(QUEUE, (name,)), attributes))
        if missing := it.settings.keys() - _in_force(site, name).keys():
            text = f"the policy {helpers.policy!r} is not in force: {', '.join(sorted(missing))}"
            raise ProvisioningFailed(
                f"queue {name!r}: {text}; does another policy have a priority above"
                f" {POLICY_PRIORITY}?",
                object=f"queue {name!r}",
                reason=text,
            )
    # Of several destinations the switch takes exactly one, by the key.
    _exchange(site, helpers.switch, "x-modulus-hash")
    _exchange(site, helpers.aside, "fanout")
    _exchange(site, helpers.refill, "fanout")
    site.bindings.bind([link(helpers.aside, "queue", helpers.aside)])
    return it


def attach(site: Site, it: Replacement) -> Replacement:
    """Put the switch between exchanges and the queue; RabbitMQ delivers to a queue but once."""
    helpers, bindings = Helpers.of(it.identity), site.bindings
    there = into(bindings.read(), "queue", it.name)
    found = [each for each in there if each.name[0] not in (helpers.switch, helpers.refill)]
    it = replace(it, bindings=tuple(sorted({*it.bindings, *found})))
    record.write(site.management, it)
    bindings.bind([link(helpers.switch, "queue", it.name)])
    bindings.bind(redirected(each, "exchange", helpers.switch) for each in it.bindings)
    bindings.unbind(it.bindings)
    return it


def divert(site: Site, it: Replacement) -> Replacement:
    """Let new messages go to the interim queue."""
    helpers, bindings = Helpers.of(it.identity), site.bindings
    bindings.bind([link(helpers.switch, "queue", helpers.interim)])
    bindings.unbind([link(helpers.switch, "queue", it.name)])
    site.say(f"new messages go to {helpers.interim!r}, which nobody consumes yet")
    return it


def drain_old(site: Site, it: Replacement) -> Replacement:
    """Wait until consumers have finished what they hold, and move aside what waits."""
    helpers = Helpers.of(it.identity)
    finish_shovel(site, it.name)
    drain(site, {it.name: helpers.aside})
    return it


def swap(site: Site, it: Replacement) -> Replacement:
    """Delete the empty queue and declare it as it is to be."""
    while (there := _there(site, it.identity)) is not None:
        if not differences(it.wanted, there):
            return it
        ready = site.ready(it.name)
        if ready is not None and ready.messages:
            # Published to it by name, through the default exchange.
            drain_old(site, it)
            continue
        # Only a classic queue can check for itself; what comes in between goes to waste here.
        with site.channel() as channel:
            classic = it.before.get("type") == "classic"
            lost = channel.queue_delete(it.name, if_empty=classic) or 0
        if lost:
            site.say(
                f"{lost} messages were lost: they were published straight to {it.name!r} in the"
                " moment in which it was deleted"
            )
    _declare(site, it.wanted)
    there = _there(site, it.identity)
    if there is None or differences(it.wanted, there):
        reason = "RabbitMQ said that it declared it, but it is not as it was declared"
        raise ProvisioningFailed(f"{it.identity}: {reason}", object=str(it.identity), reason=reason)
    site.say(f"{it.identity} is as it is to be; consumers may come back")
    return it


def refill(site: Site, it: Replacement) -> Replacement:
    """Move back what waited at the start, then most of what came meanwhile."""
    helpers, refuses = Helpers.of(it.identity), _refuses(site, it)
    if _exists(site, helpers.refill):
        site.bindings.bind([link(helpers.refill, "queue", it.name)])
    for name in (helpers.aside, helpers.interim):
        finish_shovel(site, name)
    empty(site, helpers.aside, helpers.refill, refuses=refuses)
    for _ in range(_ROUNDS):
        if empty(site, helpers.interim, helpers.refill, refuses=refuses) < _FEW:
            break
    return it


def restore(site: Site, it: Replacement) -> Replacement:
    """Let new messages go to the queue again, through its own bindings."""
    helpers, bindings = Helpers.of(it.identity), site.bindings
    if _exists(site, helpers.switch):
        bindings.bind([link(helpers.switch, "queue", it.name)])
        bindings.unbind([link(helpers.switch, "queue", helpers.interim)])
    bindings.bind(it.bindings)
    bindings.unbind(redirected(each, "exchange", helpers.switch) for each in it.bindings)
    return it


def settle(site: Site, it: Replacement) -> Replacement:
    """Move the rest; nothing comes after it."""
    helpers = Helpers.of(it.identity)
    for name in (helpers.aside, helpers.interim):
        finish_shovel(site, name)
    queues = {helpers.aside: helpers.refill, helpers.interim: helpers.refill}
    late = drain(site, queues, refuses=_refuses(site, it))
    if late:
        site.say(
            f"{late:,} messages were moved after new ones could reach {it.name!r} again: those"
            " may have overtaken them"
        )
    return it


def clean(site: Site, it: Replacement) -> Replacement:
    """Delete the helpers, which are empty."""
    helpers, management = Helpers.of(it.identity), site.management
    for name in (helpers.switch, helpers.aside, helpers.refill):
        management.delete("exchanges", site.vhost, name)
    for name in (helpers.interim, helpers.aside):
        management.delete("queues", site.vhost, name)
    management.delete("policies", site.vhost, helpers.policy)
    return it


ACTIONS: Mapping[str, tuple[str, Callable[[Site, Replacement], Replacement]]] = {
    "prepare": ("making the helpers", prepare),
    "attach": ("putting a switch before it", attach),
    "divert": ("diverting new messages", divert),
    "drain": ("emptying it", drain_old),
    "swap": ("deleting it and declaring it anew", swap),
    "refill": ("moving its messages back", refill),
    "restore": ("restoring its bindings", restore),
    "settle": ("moving the rest", settle),
    "clean": ("taking the helpers away", clean),
}


def _declare(site: Site, wanted: Object) -> None:
    write(Change("create", wanted.identity, after=wanted), site.vhost, site.management)


def _exchange(site: Site, name: str, type: str) -> None:
    attributes = {"type": type, "durable": True, "internal": False, "auto_delete": False}
    _declare(site, Object(Identity(EXCHANGE, (name,)), attributes))


def _exists(site: Site, exchange: str) -> bool:
    return site.management.find("exchanges", site.vhost, exchange) is not None


def _in_force(site: Site, queue: str) -> Mapping[str, Any]:
    return read_effective(site.management, site.vhost).get(queue, {})


def _there(site: Site, identity: Identity) -> Object | None:
    return read_kind(site.management, site.vhost, QUEUE).get(identity)


def _refuses(site: Site, it: Replacement) -> bool:
    arguments = it.after.get("arguments") or {}
    effective = _in_force(site, it.name)
    return any(f"x-{key}" in arguments or key in effective for key in _LIMITS)
