"""How many jobs a second are published, confirmed? Beside Celery with and without confirms.

One producer, a quorum queue, persistent messages of Celery's protocol with a 256-byte argument.
After each run the queue is counted: what is missing is reported and ends the benchmark.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path

from benchmarks.rounds import measure, report
from broker import local
from broker.connection import Address, connect, resolve_address
from broker.management import Management
from broker.topology import Topology
from broker.topology.apply import apply
from broker.topology.compile import compile_topology
from broker.topology.observe import observe
from broker.topology.plan import make_plan

JOBS, CELERY_JOBS = 10_000, 2_000
QUEUE = "jobs.normal"
ARGUMENT = "x" * 256


def main() -> None:
    """Measure and report, in jobs a second."""
    started_here = local.private_url() is None
    address = resolve_address(local.up().url).with_vhost(f"bench-{uuid.uuid4().hex[:8]}")
    topology = Topology.load(Path(__file__).resolve().parents[1] / "topology.yaml")
    try:
        with Management(address) as management:
            plan = make_plan(
                compile_topology(topology, vhost=address.vhost_name),
                observe(management, address.vhost_name),
            )
            apply(plan, management)
            version = management.version()
            contenders = {
                "rabbitry, confirmed": _counted(address, JOBS, _rabbitry(topology, address)),
                "Celery, confirmed": _counted(address, CELERY_JOBS, _celery(address, True)),
                "Celery, unconfirmed": _counted(address, CELERY_JOBS, _celery(address, False)),
            }
            figures = measure(contenders)
            management.delete("vhosts", address.vhost_name)
    finally:
        if started_here:
            local.down()
    report(
        "published jobs a second",
        figures,
        unit="jobs/s",
        first="rabbitry, confirmed",
        context={"rabbitmq": version, "jobs": JOBS, "celery_jobs": CELERY_JOBS},
    )


def _counted(address: Address, count: int, publish: Callable[[int], None]) -> Callable[[], float]:
    def run() -> float:
        connection = connect(address)
        channel = connection.default_channel
        channel.queue_purge(QUEUE)
        started = time.perf_counter()
        publish(count)
        seconds = time.perf_counter() - started
        # Unconfirmed messages may still be on their way.
        deadline = time.monotonic() + 30
        while (found := channel.queue_declare(QUEUE, passive=True).message_count) < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"{count} jobs were published, {found} are in the queue")
            time.sleep(0.05)
        connection.release()
        return count / seconds

    return run


def _rabbitry(topology: Topology, address: Address) -> Callable[[int], None]:
    from producers.publisher import Publisher

    def publish(count: int) -> None:
        with Publisher(topology, address.url) as publisher:
            jobs = (("demo.echo", (ARGUMENT,)) for _ in range(count))
            for receipt in publisher.publish_many(jobs):
                receipt.wait()

    return publish


def _celery(address: Address, confirm: bool) -> Callable[[int], None]:
    from celery import Celery
    from kombu import Exchange

    app = Celery("bench", broker=address.url, set_as_current=False)
    app.conf.broker_transport_options = {"confirm_publish": confirm}
    app.conf.task_ignore_result = True
    jobs = Exchange("jobs", type="topic", no_declare=True)

    def publish(count: int) -> None:
        with app.producer_pool.acquire(block=True) as producer:
            for _ in range(count):
                app.send_task(
                    "demo.echo",
                    (ARGUMENT,),
                    exchange=jobs,
                    routing_key="normal.demo.echo",
                    producer=producer,
                )

    return publish


if __name__ == "__main__":
    main()
