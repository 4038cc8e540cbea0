"""The steps of replacing an exchange; each may be done again after it was killed half-way.

What other exchanges and alternate exchanges hand on arrives throughout. Those who publish
straight to the exchange get 404 in the moment between deleting and declaring it: their messages
come back to them as unroutable, and none is lost in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from broker.errors import ProvisioningFailed
from broker.topology.objects import EXCHANGE, Identity, Object
from broker.topology.observe import read_kind
from broker.topology.plan import Change, differences
from broker.topology.policies import pattern
from broker.topology.replace import record
from broker.topology.replace.bindings import into, out_of, redirected, relayed
from broker.topology.replace.record import Replacement
from broker.topology.replace.site import Site
from broker.topology.replace.steps import POLICY_PRIORITY, Helpers
from broker.topology.write import write

ALTERNATE = "alternate-exchange"


def begin(site: Site, change: Change, owner: str) -> Replacement:
    """Return what is to be done for a change; nothing is written."""
    assert change.before is not None
    assert change.after is not None
    answer = site.management.get("exchanges", site.vhost, change.identity.name[0])
    name = answer.get("policy")
    policy = (site.management.find("policies", site.vhost, name) if name else None) or {}
    alternate = dict(policy.get("definition") or {}).get(ALTERNATE)
    return Replacement(
        owner=owner,
        vhost=site.vhost,
        identity=change.identity,
        before=change.before.attributes,
        after=change.after.attributes,
        step="prepare",
        settings={} if alternate is None else {ALTERNATE: alternate},
    )


def prepare(site: Site, it: Replacement) -> Replacement:
    """Make the stand-in: of the new kind, so that RabbitMQ says now whether it takes it."""
    standin = Helpers.of(it.identity).standin
    if it.settings:
        _policy(site, standin, standin, it.settings)
    attributes = {**it.after, "internal": False, "auto_delete": False, "durable": True}
    wanted = Object(Identity(EXCHANGE, (standin,)), attributes)
    write(Change("create", wanted.identity, after=wanted), site.vhost, site.management)
    return it


def attach(site: Site, it: Replacement) -> Replacement:
    """Bind the stand-in like the exchange, and take the exchange out of the others' way."""
    standin, bindings = Helpers.of(it.identity).standin, site.bindings
    it = _remember(site, it)
    bindings.bind(relayed(each, standin) for each in out_of(it.bindings, it.name))
    sources = list(into(it.bindings, "exchange", it.name))
    # Both lead to the same queues, and RabbitMQ delivers to a queue but once.
    bindings.bind(redirected(each, "exchange", standin) for each in sources)
    bindings.unbind(sources)
    return it


def swap(site: Site, it: Replacement) -> Replacement:
    """Delete the exchange and declare it as it is to be."""
    standin, management = Helpers.of(it.identity).standin, site.management
    there = _there(site, it.identity)
    if there is not None and not differences(it.wanted, there):
        return it
    if there is not None:
        it = _remember(site, it)
        site.bindings.bind(relayed(each, standin) for each in out_of(it.bindings, it.name))
        # What the new exchange does not route yet goes through the stand-in.
        _policy(site, f"{standin}.alternate", it.name, {ALTERNATE: standin})
        management.delete("exchanges", site.vhost, it.name)
    write(Change("create", it.identity, after=it.wanted), site.vhost, management)
    there = _there(site, it.identity)
    if there is None or differences(it.wanted, there):
        reason = "RabbitMQ said that it declared it, but it is not as it was declared"
        raise ProvisioningFailed(f"{it.identity}: {reason}", object=str(it.identity), reason=reason)
    site.say(f"{it.identity} is as it is to be; publishers to it met 404 for a moment")
    return it


def restore(site: Site, it: Replacement) -> Replacement:
    """Bind the exchange as it was, in both directions, so that no message misses a queue."""
    standin, bindings = Helpers.of(it.identity).standin, site.bindings
    out = [each for each in out_of(it.bindings, it.name) if each.name[2] != standin]
    sources = list(into(it.bindings, "exchange", it.name))
    relays = {redirected(each, "exchange", standin) for each in out}
    # A message that one of the keys routes goes wherever it is to go, through the stand-in,
    # until all keys are there. An x-local-random exchange leads to queues only.
    with suppress(ProvisioningFailed):
        bindings.bind(sorted(relays))
    bindings.bind(out)
    bindings.unbind(relays)
    bindings.bind(sources)
    bindings.unbind(redirected(each, "exchange", standin) for each in sources)
    site.management.delete("policies", site.vhost, f"{standin}.alternate")
    return it


def clean(site: Site, it: Replacement) -> Replacement:
    """Delete the stand-in."""
    helpers, management = Helpers.of(it.identity), site.management
    management.delete("exchanges", site.vhost, helpers.standin)
    management.delete("policies", site.vhost, helpers.standin)
    return it


ACTIONS: Mapping[str, tuple[str, Callable[[Site, Replacement], Replacement]]] = {
    "prepare": ("making a stand-in", prepare),
    "attach": ("letting the stand-in take its place", attach),
    "swap": ("deleting it and declaring it anew", swap),
    "restore": ("restoring its bindings", restore),
    "clean": ("taking the stand-in away", clean),
}


def _remember(site: Site, it: Replacement) -> Replacement:
    """Write down every binding from and to the exchange, before one of them goes."""
    standin, there = Helpers.of(it.identity).standin, site.bindings.read()
    found = {*out_of(there, it.name), *into(there, "exchange", it.name)}
    own = {each for each in found if standin in (each.name[0], each.name[2])}
    it = replace(it, bindings=tuple(sorted({*it.bindings, *found} - own)))
    record.write(site.management, it)
    return it


def _policy(site: Site, name: str, exchange: str, definition: Mapping[str, Any]) -> None:
    body = {
        "pattern": pattern([exchange]),
        "apply-to": "exchanges",
        "priority": POLICY_PRIORITY,
        "definition": dict(definition),
    }
    site.management.put("policies", site.vhost, name, body=body)


def _there(site: Site, identity: Identity) -> Object | None:
    return read_kind(site.management, site.vhost, EXCHANGE).get(identity)
