"""How long does applying a topology from nothing take? Beside one import of definitions.

The same objects each time, in a fresh virtual host: a fifth exchanges, a fifth classic queues,
the rest bindings. Classic, since a quorum queue costs the same milliseconds either way and would
hide the difference. An import is what RabbitMQ does fastest, and believes; apply also plans,
takes its lock, keeps its record, reads everything back and compares it. Last the plan that finds
nothing to do, and the memory that all this took.
"""

from __future__ import annotations

import resource
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.rounds import measure, report
from broker import local
from broker.connection import Address, resolve_address
from broker.management import Management
from broker.topology import Topology
from broker.topology.apply import apply
from broker.topology.look import look

SIZES = (100, 1_000, 5_000)
ROUNDS = {100: 5, 1_000: 5, 5_000: 3}
BINDINGS = 3


def main() -> None:
    """Measure and report, in milliseconds."""
    started_here = local.private_url() is None
    address = resolve_address(local.up().url)
    try:
        with Management(address) as management:
            version = management.version()
        for size in SIZES:
            found = topology_of(size)
            contenders = {
                "apply": _applying(found, address),
                "one import": _importing(found, address),
                "plan of no changes": _planning(found, address),
            }
            report(
                f"milliseconds for {size:,} objects from nothing",
                measure(contenders, rounds=ROUNDS[size]),
                unit="ms",
                first="apply",
                context={"rabbitmq": version, "objects": size, "peak_mb": _peak_mb()},
            )
            print(f"memory at its peak: {_peak_mb()} MB")
    finally:
        if started_here:
            local.down()


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


@contextmanager
def _fresh(address: Address) -> Iterator[Management]:
    with Management(address.with_vhost(f"bench-{uuid.uuid4().hex[:8]}"), timeout_s=300) as client:
        vhost = client.address.vhost_name
        client.put("vhosts", vhost, body={"default_queue_type": "classic"})
        try:
            yield client
        finally:
            client.delete("vhosts", vhost)
            for each in client.get("global-parameters"):
                if isinstance(each["value"], dict) and each["value"].get("vhost") == vhost:
                    client.delete("global-parameters", each["name"])


def _applied(found: Topology, management: Management) -> float:
    started = time.perf_counter()
    outcome = apply(look(found, management).plan, management)
    milliseconds = (time.perf_counter() - started) * 1e3
    if not outcome.complete:
        raise SystemExit(f"apply did not end well: {outcome.document()}")
    return milliseconds


def _applying(found: Topology, address: Address) -> Callable[[], float]:
    def run() -> float:
        with _fresh(address) as management:
            return _applied(found, management)

    return run


def _planning(found: Topology, address: Address) -> Callable[[], float]:
    def run() -> float:
        with _fresh(address) as management:
            _applied(found, management)
            started = time.perf_counter()
            plan = look(found, management).plan
            milliseconds = (time.perf_counter() - started) * 1e3
            if not plan.same:
                raise SystemExit("the plan after an apply is not empty")
            return milliseconds

    return run


def _importing(found: Topology, address: Address) -> Callable[[], float]:
    exported = {}
    with _fresh(address) as management:
        _applied(found, management)
        exported = management.get("definitions", management.address.vhost_name)

    def run() -> float:
        with _fresh(address) as management:
            started = time.perf_counter()
            management.post("definitions", management.address.vhost_name, body=exported)
            return (time.perf_counter() - started) * 1e3

    return run


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
