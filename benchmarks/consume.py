"""How many no-op jobs a second does a worker run? Beside Celery and dramatiq.

Two slots each, a quorum queue, late acks, the same number of messages fetched ahead: our worker
and `celery worker` with two processes and the same guarantees (acknowledged when done, returned
when a process is lost), dramatiq with two processes of one thread. The queue is filled before the
worker starts; what is measured begins when a tenth of the jobs is done. After each run the worker
is told to stop, and the ledger is read: every job run, none left, none dead.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.consumers import (
    CELERY_JOB,
    CELERY_QUEUE,
    COUNTS,
    DEAD_QUEUE,
    DRAMATIQ_QUEUE,
    JOB,
    MULTIPLIER,
    NARROW,
    QUEUE,
    SLOTS,
    TOPOLOGY,
    URL,
    WIDE,
)
from benchmarks.rounds import Bar, measure, report
from broker import local
from broker.connection import Address, connect
from broker.management import Management
from broker.topology import Topology
from broker.topology.apply import apply
from broker.topology.look import look

ROOT = Path(__file__).resolve().parents[1]
ARGUMENT = "x" * 256
LOGLEVEL = "WARNING"
WARM_UP_SHARE = 0.1
TIMEOUT_S = 90.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Contender:
    """A worker and what it is given.

    Attributes:
        queue: that it consumes.
        count: how many jobs a run has.
        command: that starts it.
        environment: added to its own.
        fill: puts so many jobs into the queue.
    """

    queue: str
    count: int
    command: list[str]
    environment: dict[str, str]
    fill: Callable[[Address, int], None]


@dataclass(frozen=True, slots=True)
class Taken:
    """Processor seconds until now: of the worker's first process, its children, and RabbitMQ."""

    parent_s: float
    children_s: float
    rabbitmq_s: float


def main() -> None:
    """Measure and report, in jobs a second."""
    started_here = local.private_url() is None
    node = local.up()
    address = Address.parse(node.url, management_url=node.management_url)
    address = address.with_vhost(f"bench-{uuid.uuid4().hex[:8]}")
    try:
        with Management(address) as management, tempfile.TemporaryDirectory() as folder:
            version = management.version()
            apply(look(Topology.model_validate(TOPOLOGY), management).plan, management)
            try:
                process = node.nodes[0].process
                rabbitmq = None if process is None else process.pid
                _measure(address, Path(folder), version, rabbitmq)
            finally:
                management.delete("vhosts", address.vhost_name)
    finally:
        if started_here:
            local.down()


def _measure(address: Address, folder: Path, version: str, rabbitmq: int | None) -> None:
    load = os.getloadavg()[0]
    contenders = contenders_of(address, folder)
    taken: dict[str, list[Taken]] = {}
    runs = {
        name: partial(_run, address, folder, each, rabbitmq, taken.setdefault(name, []))
        for name, each in contenders.items()
    }
    for prefetch, ours, bar in ((WIDE, "wide", 1.5), (NARROW, "narrow", 1.0)):
        names = [name for name in runs if name.endswith(f" {prefetch}")]
        figures = measure({name: runs[name] for name in names}, rounds=5)
        report(
            f"no-op jobs a second, two slots, {prefetch} messages fetched ahead by all",
            figures,
            unit="jobs/s",
            first=f"rabbitry, prefetch {prefetch}",
            context={
                "rabbitmq": version,
                "load": load,
                "prefetch": prefetch,
                "worker": ours,
                "log level": LOGLEVEL,
            },
            bars=[Bar(f"Celery, prefetch {prefetch}", bar)],
            libraries=("dramatiq", "pika", "billiard"),
        )
    for name, each in taken.items():
        # The first round does not count.
        parent, children, broker = (
            statistics.median(1e3 * getattr(one, part) for one in each[1:])
            for part in ("parent_s", "children_s", "rabbitmq_s")
        )
        print(
            f"{name}: processor ms for 1,000 jobs: first process {parent:.0f},"
            f" its children {children:.0f}, RabbitMQ {broker:.0f}"
        )
    print(
        f"log level {LOGLEVEL}; all queues are quorum queues; dramatiq acknowledges one by one,"
        f" each of its processes fetches {WIDE // SLOTS} ahead"
    )
    print(f"load of the machine before, of {os.cpu_count()} processors: {load:.1f}")


def contenders_of(address: Address, folder: Path) -> dict[str, Contender]:
    """Return who is measured, by name and by how many messages it fetches ahead."""
    topology = folder / "topology.yaml"
    topology.write_text(_yaml(TOPOLOGY))
    python = [sys.executable, "-m"]
    ours = [*python, "rabbitry", "worker", "run", "--loglevel", LOGLEVEL]
    celery = [
        *(*python, "celery", "-A", "benchmarks.consumers:celery_app", "worker"),
        *("-Q", CELERY_QUEUE, "-c", str(SLOTS), "--loglevel", LOGLEVEL),
    ]
    given = {"RABBITRY_TOPOLOGY": str(topology), "RABBITRY_URL": address.url}
    found = {}
    for prefetch, worker, count in ((WIDE, "wide", 6_000), (NARROW, "narrow", 3_000)):
        found[f"rabbitry, prefetch {prefetch}"] = Contender(
            QUEUE, count, [*ours, worker], given, partial(_fill, JOB)
        )
        environment = {URL: address.url, MULTIPLIER: str(prefetch // SLOTS)}
        found[f"Celery, prefetch {prefetch}"] = Contender(
            CELERY_QUEUE, count, celery, environment, partial(_fill, CELERY_JOB)
        )
        found[f"dramatiq, prefetch {prefetch}"] = Contender(
            DRAMATIQ_QUEUE,
            count,
            [
                *(*python, "dramatiq", "benchmarks.consumers:dramatiq_broker"),
                *("--processes", str(SLOTS), "--threads", "1", "--skip-logging"),
            ],
            {URL: address.url, "dramatiq_queue_prefetch": str(prefetch // SLOTS)},
            _fill_dramatiq,
        )
    return found


def _fill(job: str, address: Address, count: int) -> None:
    from producers.publisher import Publisher

    with Publisher(Topology.model_validate(TOPOLOGY), address.url) as publisher:
        for receipt in publisher.publish_many((job, (ARGUMENT,)) for _ in range(count)):
            receipt.wait()


def _fill_dramatiq(address: Address, count: int) -> None:
    os.environ[URL] = address.url
    from benchmarks.consumers import dramatiq_broker

    actor = dramatiq_broker.get_actor("noop")
    for _ in range(count):
        actor.send(ARGUMENT)


def _run(
    address: Address, folder: Path, each: Contender, rabbitmq: int | None, taken: list[Taken]
) -> float:
    counts = folder / uuid.uuid4().hex
    counts.mkdir()
    each.fill(address, each.count)
    _wait(lambda: _ready(address, each.queue) == each.count, "the queue to be filled", 30)
    log = counts.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            each.command,
            cwd=ROOT,
            env={**os.environ, **each.environment, COUNTS: str(counts)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        warm_up = round(each.count * WARM_UP_SHARE)
        first = _wait(lambda: _done(counts, warm_up, process), "the first jobs", TIMEOUT_S)
        started, before = time.perf_counter(), _taken(process.pid, rabbitmq)
        last = _wait(lambda: _done(counts, each.count, process), "the last job", TIMEOUT_S)
        seconds, after = time.perf_counter() - started, _taken(process.pid, rabbitmq)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    except BaseException:
        print(log.read_text(errors="replace")[-2000:], file=sys.stderr)
        raise
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    _check(address, each, counts)
    jobs = last - first
    taken.append(
        Taken(
            (after.parent_s - before.parent_s) / jobs * 1e3,
            (after.children_s - before.children_s) / jobs * 1e3,
            (after.rabbitmq_s - before.rabbitmq_s) / jobs * 1e3,
        )
    )
    return jobs / seconds


def _check(address: Address, each: Contender, counts: Path) -> None:
    """End the benchmark where a job is left, dead, or was run more than once."""
    # What was held unacknowledged is ready again when the worker is gone.
    left, dead = _ready(address, each.queue), _ready(address, DEAD_QUEUE)
    run = _sum(counts)
    if (left, dead, run) != (0, 0, each.count):
        raise SystemExit(
            f"{each.queue}: {each.count} jobs were published, {run} run, {left} are left and"
            f" {dead} dead"
        )


def _done(counts: Path, wanted: int, process: subprocess.Popen[bytes]) -> int:
    if process.poll() is not None:
        raise SystemExit(f"{process.args!r} ended by itself")
    found = _sum(counts)
    return found if found >= wanted else 0


def _sum(counts: Path) -> int:
    return sum(int.from_bytes(each.read_bytes(), "little") for each in counts.iterdir())


def _wait(condition: Callable[[], int], what: str, timeout_s: float) -> int:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {timeout_s:g} s for {what}")
        time.sleep(0.005)
    return found


def _ready(address: Address, queue: str) -> int:
    connection = connect(address)
    try:
        return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
    finally:
        connection.release()


def _taken(worker: int, rabbitmq: int | None) -> Taken:
    children: dict[int, list[int]] = {}
    seconds: dict[int, float] = {}
    for each in Path("/proc").iterdir():
        if not each.name.isdigit():
            continue
        try:
            fields = (each / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        pid = int(each.name)
        children.setdefault(int(fields[1]), []).append(pid)
        seconds[pid] = (int(fields[11]) + int(fields[12])) / _TICKS

    def below(pid: int) -> float:
        return sum(seconds[each] + below(each) for each in children.get(pid, ()))

    broker_s = 0.0 if rabbitmq is None else seconds.get(rabbitmq, 0.0) + below(rabbitmq)
    return Taken(seconds[worker], below(worker), broker_s)


def _yaml(value: Any) -> str:
    from io import StringIO

    from ruamel.yaml import YAML

    text = StringIO()
    YAML(typ="safe").dump(value, text)
    return text.getvalue()


if __name__ == "__main__":
    main()
