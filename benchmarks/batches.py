"""How many no-op jobs a second does a worker run in batches? Beside a client that only consumes.

Two slots, a quorum queue, prefork, the same prefetch for all. The queue is filled before a run;
what is measured begins when a tenth of the jobs is done. The bare client (py-amqp, which the
worker reads with, too) decodes no body, runs nothing, and acknowledges a hundred at a time: what
it reaches is what RabbitMQ and the wire allow one Python process here. After each run the ledger
is read: every job run once, none left, none dead.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.batched import (
    ACKED_TOGETHER,
    DEAD_QUEUE,
    HUNDRED,
    LARGE,
    MANY,
    PREFETCH,
    QUEUE,
    SINGLE,
    SMALL,
    TALLY,
    TOPOLOGY,
)
from benchmarks.rounds import Bar, measure, report
from broker import local
from broker.connection import Address, connect
from broker.management import Management
from broker.topology import Topology
from broker.topology.apply import apply
from broker.topology.look import look
from producers.publisher import Publisher

ROOT = Path(__file__).resolve().parents[1]
ARGUMENT = "x" * 256
JOBS, FEW_JOBS = 20_000, 4_000
WARM_UP_SHARE = 0.1
TIMEOUT_S = 90.0
BARE, LARGE_BATCHES = "py-amqp, bare", f"batches of {LARGE}"
WORKER = ["rabbitry", "worker", "run", "normal", "--loglevel", "WARNING"]
CONTENDERS = {
    LARGE_BATCHES: (MANY, JOBS, WORKER),
    f"batches of {SMALL}": (HUNDRED, JOBS, WORKER),
    "one by one": (SINGLE, FEW_JOBS, WORKER),
    BARE: (SINGLE, JOBS, ["benchmarks.batched", str(JOBS)]),
}
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and report, in jobs a second."""
    started_here = local.private_url() is None
    node = local.up()
    address = Address.parse(node.url, management_url=node.management_url)
    address = address.with_vhost(f"bench-{uuid.uuid4().hex[:8]}")
    topology = Topology.model_validate(TOPOLOGY)
    load = os.getloadavg()[0]
    busy: dict[str, list[float]] = {}
    try:
        with Management(address) as management, tempfile.TemporaryDirectory() as folder:
            version = management.version()
            apply(look(topology, management).plan, management)
            try:
                figures = measure(
                    {
                        name: partial(
                            _run, topology, address, Path(folder), *each, busy.setdefault(name, [])
                        )
                        for name, each in CONTENDERS.items()
                    }
                )
            finally:
                management.delete("vhosts", address.vhost_name)
    finally:
        if started_here:
            local.down()
    report(
        "no-op jobs a second in batches, two slots",
        figures,
        unit="jobs/s",
        first=LARGE_BATCHES,
        context={
            "rabbitmq": version,
            "load": load,
            "prefetch": PREFETCH,
            "acked together by the bare client": ACKED_TOGETHER,
        },
        bars=[Bar(BARE, 0.8)],
    )
    each = ", ".join(f"{name} {statistics.median(them):.0f}" for name, them in busy.items())
    print(f"processor of the first process, microseconds a job: {each}")
    print(f"prefetch {PREFETCH}; load of the machine before: {load:.1f} of {os.cpu_count()}")


def _run(
    topology: Topology,
    address: Address,
    folder: Path,
    job: str,
    count: int,
    command: list[str],
    busy: list[float],
) -> float:
    with Publisher(topology, address.url) as publisher:
        for receipt in publisher.publish_many((job, (ARGUMENT,)) for _ in range(count)):
            receipt.wait()
    tally = folder / uuid.uuid4().hex
    tally.touch()
    path = folder / "topology.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(TOPOLOGY))
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={
            **os.environ,
            "RABBITRY_URL": address.url,
            "RABBITRY_MANAGEMENT_URL": address.management_url,
            "RABBITRY_TOPOLOGY": str(path),
            TALLY: str(tally),
        },
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )

    def done(wanted: int) -> int:
        found = tally.stat().st_size
        if found < wanted and process.poll() is not None:
            raise SystemExit(f"{command[0]} ended after {found} of {count} jobs")
        return found if found >= wanted else 0

    try:
        first = _wait(lambda: done(round(count * WARM_UP_SHARE)), "the first jobs")
        started, cpu_s = time.perf_counter(), _cpu_s(process.pid)
        last = _wait(lambda: done(count), "the last job")
        seconds, cpu_s = time.perf_counter() - started, _cpu_s(process.pid) - cpu_s
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    left, dead = _ready(address, QUEUE), _ready(address, DEAD_QUEUE)
    if (last, left, dead) != (count, 0, 0):
        raise SystemExit(
            f"{count} jobs were published, {last} run, {left} are left and {dead} dead"
        )
    busy.append(1e6 * cpu_s / (last - first))
    return (last - first) / seconds


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0  # it has ended
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _wait(condition: Callable[[], int], what: str) -> int:
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {TIMEOUT_S:g} s for {what}")
        time.sleep(0.005)
    return found


def _ready(address: Address, queue: str) -> int:
    connection = connect(address)
    try:
        return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
    finally:
        connection.release()


if __name__ == "__main__":
    main()
