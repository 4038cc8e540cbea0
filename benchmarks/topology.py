"""How long does applying a topology from nothing take? Beside one import of definitions.

The same objects each time, in a fresh virtual host: a fifth exchanges, a fifth classic queues, the
rest bindings, and one policy. Classic, since a quorum queue costs the same milliseconds either way
and would hide the difference. After each run RabbitMQ is asked for its definitions, and they must
be those of every other way.
"""

from __future__ import annotations

import secrets
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.method import Bench, Meter, Run
from benchmarks.method.command import alone
from broker.connection import Address
from broker.management import Management
from broker.topology import Topology
from broker.topology.apply import apply
from broker.topology.look import look

ASKS = "How long does applying a topology from nothing take?"
MEANING = """\
An import of definitions is what RabbitMQ does fastest, in one request, and it is believed: it is
answered well also where an object of another kind stands in the way and stays. `apply` takes its
lock, keeps its record of what it manages, imports where the user may, reads back what it wrote,
compares it, and names each object that is not as it should be. The ratio is the price of that.
Importing takes an administrator. For a user who has only the tag `policymaker` apply writes the
objects one by one, over several connections: it costs RabbitMQ more for each object, since it
answers each request by itself. "One by one" is what a script, or a module for each object of a
configuration tool, does over one connection, and it reads nothing back.

`plan` is what runs most often, in every deployment and in a monitor of drift: it reads everything
once and compares it, and finds nothing to do here.
"""
BINDINGS = 3
BARRED = 5_000
SMALL = 1_000
SIZES = (100, 1_000, BARRED, 10_000)
LARGEST = max(SIZES)
KINDS = ("exchanges", "queues", "bindings", "policies")
APPLY, IMPORT, PLAN = "rabbitry apply", "one import", "rabbitry plan, no changes"
NARROW, ONE_BY_ONE = "rabbitry apply, no administrator", "one by one"
TOO_LONG = "left out: it takes minutes"
OUTSIDE = "left out of the small version"


def ask(bench: Bench) -> None:
    """Measure each size, in milliseconds."""
    if bench.small:
        _measure(bench, "topology.apply", SMALL)
        return
    for size in SIZES:
        _measure(bench, "topology.apply" if size == BARRED else f"topology.{size}", size)


def topology_of(size: int) -> Topology:
    """Return a topology of so many objects, its one policy apart."""
    count = size // (2 + BINDINGS)
    return Topology.model_validate(
        {
            "version": 1,
            "name": "bench",
            "exchanges": {f"x{number}": {"type": "topic"} for number in range(count)},
            "queues": {
                f"q{number}": {
                    "type": "classic",
                    "bindings": [
                        {"exchange": f"x{(number + step) % count}", "routing_key": f"key.{step}"}
                        for step in range(BINDINGS)
                    ],
                }
                for number in range(count)
            },
        }
    )


def _measure(bench: Bench, measurement: str, size: int) -> None:
    found = topology_of(size)
    with bench.virtual_host(found, default_queue_type="classic") as kept:
        with Management(kept) as management:
            wanted = _definitions(management)
        ways: dict[str, Callable[[Management], None]] = {
            APPLY: partial(_apply, found),
            IMPORT: partial(_import, wanted),
            NARROW: partial(_apply, found),
            ONE_BY_ONE: partial(_one_by_one, wanted),
        }
        contenders: dict[str, Callable[[], Run]] = {
            name: partial(_from_nothing, bench, name, way, wanted, size)
            for name, way in ways.items()
        }
        contenders[PLAN] = partial(_plan, bench, found, kept, size)
        why = OUTSIDE if bench.small else TOO_LONG if size == LARGEST else None
        missing = {name: why for name in (NARROW, ONE_BY_ONE) if why is not None}
        for name in missing:
            del contenders[name]
        bench.measure(
            measurement,
            contenders,
            title=f"{size:,} objects from nothing",
            unit="ms",
            each="object",
            first=APPLY,
            better="less",
            missing=missing,
            notes={"objects": size, "queue type": "classic"},
            warm_up=size != LARGEST,
        )


def _from_nothing(
    bench: Bench,
    name: str,
    way: Callable[[Management], None],
    wanted: Mapping[str, Any],
    size: int,
) -> Run:
    with bench.virtual_host(default_queue_type="classic") as address:
        with _user(address, narrow=name == NARROW) as user, Management(user, timeout_s=300) as it:
            run = _metered(bench, partial(way, it), size)
        with Management(address, timeout_s=300) as management:
            found = _definitions(management)
    for kind in KINDS:
        if found[kind] != wanted[kind]:
            raise SystemExit(
                f"{name} does not count: it made {len(found[kind]):,} {kind} of"
                f" {len(wanted[kind]):,}, or others than it was told to"
            )
    return run


def _plan(bench: Bench, found: Topology, kept: Address, size: int) -> Run:
    with Management(kept, timeout_s=300) as management:
        run = _metered(bench, lambda: _check_same(found, management), size)
    return run


def _check_same(found: Topology, management: Management) -> None:
    if not look(found, management).plan.same:
        raise SystemExit("the plan after an apply is not empty")


def _metered(bench: Bench, work: Callable[[], None], size: int) -> Run:
    with Meter(bench.rabbitmq.pid) as meter:
        work()
    return Run(
        value=1e3 * meter.seconds, jobs=size, client_s=meter.client_s, broker_s=meter.broker_s
    )


def _apply(found: Topology, management: Management) -> None:
    outcome = apply(look(found, management).plan, management)
    if not outcome.complete:
        raise SystemExit(f"apply did not end well: {outcome.document()}")


def _import(wanted: Mapping[str, Any], management: Management) -> None:
    management.post("definitions", management.address.vhost_name, body=wanted)


def _one_by_one(wanted: Mapping[str, Any], management: Management) -> None:
    vhost = management.address.vhost_name
    for kind in KINDS:
        for each in wanted[kind]:
            if kind == "bindings":
                path = (each["source"], each["destination_type"][0], each["destination"])
                body = {key: each[key] for key in ("routing_key", "arguments")}
                management.post("bindings", vhost, "e", path[0], *path[1:], body=body)
            else:
                body = {key: value for key, value in each.items() if key != "name"}
                management.put(kind, vhost, each["name"], body=body)


def _definitions(management: Management) -> dict[str, Any]:
    """Return what an import takes, in an order of its own."""
    exported = management.get("definitions", management.address.vhost_name)
    return {kind: sorted(exported[kind], key=lambda each: str(each)) for kind in KINDS}


@contextmanager
def _user(address: Address, *, narrow: bool) -> Iterator[Address]:
    """Give the address as it is, or as that of a user who may write everything but import."""
    if not narrow:
        yield address
        return
    name, password = f"bench-{uuid.uuid4().hex[:8]}", secrets.token_urlsafe()
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    with Management(address) as management:
        management.put("users", name, body={"password": password, "tags": "policymaker"})
        try:
            management.put("permissions", address.vhost_name, name, body=everything)
            yield replace(address, user=name, password=password)
        finally:
            management.delete("users", name)


if __name__ == "__main__":
    sys.exit(alone(__file__))
