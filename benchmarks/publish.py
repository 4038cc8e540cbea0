"""How many jobs a second are published, confirmed? Beside Celery, aio-pika and librabbitmq.

One producer, a quorum queue, persistent messages of Celery's protocol with all its headers and a
256-byte argument. Every contender is a process of its own (`benchmarks.publishers`, and
`benchmarks/publish.c` for librabbitmq), in turn, several rounds. The queue is emptied before each
run and counted after it: what is missing ends the benchmark. How much memory publishing takes
comes last.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.publishers import (
    BOUNDED_QUEUE,
    EXCHANGE,
    QUEUE,
    ROUTING_KEY,
    WARM_UP,
    sample,
    topology,
)
from benchmarks.rounds import Bar, measure, report
from broker import local
from broker.confirmed import WINDOW
from broker.connection import Address, connect
from broker.management import Management
from broker.topology.apply import apply
from broker.topology.look import look

ROOT = Path(__file__).resolve().parents[1]
MANY = "rabbitry, many"
C_LIBRARY = "librabbitmq, C"
# How many jobs: about a second's work, so that no contender is measured by its start.
JOBS = {
    MANY: ("rabbitry_many", 20_000),
    "rabbitry, one by one": ("rabbitry_single", 20_000),
    "Celery, confirmed": ("celery_confirmed", 1_500),
    "Celery, unconfirmed": ("celery_unconfirmed", 4_000),
    "aio-pika, gathered": ("aio_pika_gathered", 8_000),
}
C_JOBS = 20_000
BARS = (
    Bar("Celery, confirmed", 25.0),
    Bar("Celery, unconfirmed", 9.0),
    Bar("aio-pika, gathered", 3.0),
    Bar(C_LIBRARY, 0.5),
)
SIZES = (10_000, 100_000, 1_000_000)
# What may come on top from the smallest to the largest number: allocators keep some.
GROWTH_MIB = 10.0
APT = "apt-get install gcc libc6-dev librabbitmq-dev"


def main() -> None:
    """Measure and report, in jobs a second, then in MiB."""
    started_here = local.private_url() is None
    node = local.up()
    address = Address.parse(node.url, management_url=node.management_url)
    address = address.with_vhost(f"bench-{uuid.uuid4().hex[:8]}")
    try:
        with Management(address) as management, tempfile.TemporaryDirectory() as folder:
            version = management.version()
            apply(look(topology(), management).plan, management)
            try:
                _speed(address, Path(folder), version)
                _memory(address)
            finally:
                management.delete("vhosts", address.vhost_name)
    finally:
        if started_here:
            local.down()


def _speed(address: Address, folder: Path, version: str) -> None:
    load = os.getloadavg()[0]
    # By contender, one a run: what a job takes of a processor, which a busy machine changes less.
    busy: dict[str, list[float]] = {}

    def counted(name: str, count: int, run: Callable[[], dict[str, Any]]) -> Callable[[], float]:
        def publish() -> float:
            found = run()
            busy.setdefault(name, []).append(1e6 * found["cpu_seconds"] / count)
            return float(found["seconds"])

        return _counted(address, count, publish)

    contenders = {
        name: counted(name, count, partial(_run_python, address, function, count))
        for name, (function, count) in JOBS.items()
    }
    missing = {}
    program = _compiled(folder)
    if program is None:
        missing[C_LIBRARY] = f"not measured; {APT}"
    else:
        contenders[C_LIBRARY] = counted(C_LIBRARY, C_JOBS, _c(address, program, C_JOBS))
    report(
        "published jobs a second (all confirmed but where it says otherwise)",
        measure(contenders),
        unit="jobs/s",
        first=MANY,
        context={"rabbitmq": version, "window": WINDOW, "load": load},
        bars=BARS,
        missing=missing,
        libraries=("aio-pika",),
    )
    each = ", ".join(f"{name} {statistics.median(them):.0f}" for name, them in busy.items())
    print(f"processor of the publishing process, microseconds a job: {each}")
    print(f"load of the machine before, of {os.cpu_count()} processors: {load:.1f}")


def _counted(address: Address, count: int, publish: Callable[[], float]) -> Callable[[], float]:
    def run() -> float:
        connection = connect(address)
        channel = connection.default_channel
        channel.queue_purge(QUEUE)
        seconds = publish()
        # Unconfirmed messages may still be on their way.
        deadline = time.monotonic() + 30
        wanted = count + WARM_UP
        while (found := channel.queue_declare(QUEUE, passive=True).message_count) < wanted:
            if time.monotonic() > deadline:
                raise SystemExit(f"{wanted} jobs were published, {found} are in the queue")
            time.sleep(0.05)
        channel.queue_purge(QUEUE)
        connection.release()
        if found > wanted:
            raise SystemExit(f"{wanted} jobs were published, {found} are in the queue")
        return count / seconds

    return run


def _run_python(address: Address, function: str, count: int) -> dict[str, Any]:
    return _run(
        [sys.executable, "-m", "benchmarks.publishers", function, str(count)],
        env={"RABBITRY_URL": address.url},
    )


def _compiled(folder: Path) -> Path | None:
    """Compile the C program; None where compiler or library are missing."""
    program = folder / "publish"
    source = ROOT / "benchmarks" / "publish.c"
    try:
        done = subprocess.run(
            ["cc", "-O2", "-o", str(program), str(source), "-lrabbitmq"], capture_output=True
        )
    except FileNotFoundError:
        return None
    if done.returncode == 0:
        return program
    if b"amqp.h" in done.stderr or b"-lrabbitmq" in done.stderr:
        return None
    raise SystemExit(f"{source} does not compile:\n{done.stderr.decode()}")


def _c(address: Address, program: Path, count: int) -> Callable[[], dict[str, Any]]:
    from amqp.serialization import dumps

    body, headers, properties = sample(address)
    table: bytes = dumps("F", [headers])
    command = [
        *(str(program), address.host, str(address.port), address.user, address.vhost_name),
        *(EXCHANGE, ROUTING_KEY, str(count), str(WARM_UP), str(WINDOW)),
        *(str(properties["priority"]), properties["content_type"]),
    ]
    env = {"PASSWORD": address.password, "ID": headers["id"]}
    return lambda: _run(command, env=env, given=table + body)


def _run(command: list[str], *, env: dict[str, str], given: bytes = b"") -> dict[str, Any]:
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, input=given, capture_output=True
    )
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{done.stderr.decode()}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _memory(address: Address) -> None:
    """Print how large the publishing process gets.

    The queue keeps the last 10,000 messages only: a million of them belong on nobody's disk.
    """
    sizes = []
    for count in SIZES:
        found = _run_python(address, "rabbitry_bounded", count)
        sizes.append(float(found["size_mib"]))
        rate = count / float(found["seconds"])
        print(f"publish_many of {count:>9,} jobs: {sizes[-1]:.1f} MiB at most, {rate:,.0f} jobs/s")
    grown = sizes[-1] - sizes[0]
    verdict = "PASS" if grown <= GROWTH_MIB else "FAIL"
    print(
        f"{verdict}: {grown:+.1f} MiB from {SIZES[0]:,} to {SIZES[-1]:,} jobs into {BOUNDED_QUEUE};"
        f" at most {GROWTH_MIB:.0f} count as constant"
    )


if __name__ == "__main__":
    main()
