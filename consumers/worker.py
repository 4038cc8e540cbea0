"""One worker daemon: a Celery worker for the queues that the topology gives it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from celery import Celery
from celery.apps.worker import Worker, install_cry_handler
from celery.utils.nodenames import default_nodename, host_format

from broker.connection import Address
from broker.topology import Topology
from consumers.batch.prefetch import calls_held, widened
from consumers.checks import check_pool, check_signatures, load_tasks, worker_of
from consumers.child import end_with_parent
from consumers.ending import leave
from consumers.factory import make_app
from consumers.kept import check_kept
from consumers.limits import Limits
from consumers.logs import TEXT, set_up
from consumers.needs import check_existence, check_settings
from consumers.notify import Notifier
from consumers.once.task import check_store
from consumers.one_shot import OneShot
from consumers.prefetch import shares_for
from consumers.presence import client_properties_of
from consumers.probes import Probes
from consumers.shutdown import Shutdown

# Celery's own, but for these.
POOLS = {"prefork": "consumers.pool.pool:JobTaskPool"}


def run_worker(
    topology: Topology,
    address: Address,
    name: str,
    *,
    loglevel: str,
    log_format: str = TEXT,
    one_shot: bool = False,
    health: str | None = None,
) -> int:
    """Run one worker until it is told to stop; returns its exit code.

    Args:
        topology: says which queues it consumes and how.
        address: where RabbitMQ is; one that does not answer is waited for, but for one shot.
        name: of the worker in the topology.
        loglevel: ``DEBUG``, ``INFO``, ``WARNING`` or ``ERROR``.
        log_format: ``text`` or ``json``.
        one_shot: whether to stop when nothing is left to run.
        health: ``HOST:PORT`` where it answers probes, instead of what the file says.

    Raises:
        WorkerError: there is no such worker, its tasks cannot be imported, its pool cannot run
            them as they ask for, what is finished of them cannot be recorded, their results cannot
            be kept, or a queue is not what the file says.
        MissingOnBroker: a queue does not exist.
        AccessRefused, VirtualHostMissing: RabbitMQ does not take the user.
        Unreachable: nobody answers, and it is for one shot.
    """
    set_up(level=loglevel, format=log_format)
    end_with_parent()
    # Until there is something to finish.
    signal.signal(signal.SIGTERM, lambda *_: leave(0))
    # Where the command is a script Python looks for modules beside it, and not here.
    if not {"", here := str(Path.cwd())} & set(sys.path):
        sys.path.insert(0, here)
    spec = worker_of(topology, name)
    shares = shares_for(topology, name)
    app = make_app(topology, address)
    # While the rest gets ready; no job begins before it is up to date.
    app.cancellations.start()
    app.conf.worker_enable_remote_control = spec.remote_control
    load_tasks(app, topology)
    check_signatures(app, topology)
    default_s = None if spec.time_limit is None else spec.time_limit.total_seconds()
    app.limits = Limits(topology, app.undertaker.rules, default_s=default_s)
    check_pool(app, topology, name)
    check_store(app)
    check_kept(app, topology)
    letters = {app.undertaker.rules.of(queue).exchange for queue in spec.queues}
    hostname = host_format(default_nodename(f"{name}@%h"))
    app.conf.broker_transport_options = {"client_properties": client_properties_of(hostname)}
    probes = Probes(app, name, spec, hostname=hostname)
    if where := health or spec.health:
        probes.serve(where)
    check_existence(
        address,
        spec.queues,
        sorted(filter(None, letters)),
        # Whoever drains queues now and then comes again.
        wait=not one_shot,
        pulse=app.pulse,
    )
    check_settings(topology, address, spec.queues)
    worker = JobWorker(
        app=app,
        hostname=hostname,
        pool=POOLS.get(spec.pool, spec.pool),
        concurrency=spec.concurrency,
        queues=spec.queues,
        loglevel=loglevel,
        quiet=True,
    )
    narrow, shares = shares, widened(shares, spec, app)
    # Read by JobConsumer: what RabbitMQ may hand over ahead, together and of each queue.
    worker.prefetch, worker.shares = sum(shares.values()), shares
    worker.calls = calls_held(narrow, shares, spec)
    worker.notifier = notifier = Notifier()
    worker.shutdown = Shutdown(
        worker, grace_s=spec.grace.total_seconds(), on_begin=lambda: notifier.tell(STOPPING=1)
    )
    probes.worker = worker
    if one_shot:
        worker.one_shot = _one_shot(worker, address, spec.queues)
    worker.start()
    return int(worker.exitcode or 0)


class JobWorker(Worker):  # type: ignore[misc]
    """Celery's worker with our own way to stop, and to say that it is ready."""

    app: Celery
    shutdown: Shutdown
    notifier: Notifier
    one_shot: OneShot | None = None

    def install_platform_tweaks(self, worker: Any) -> None:
        """Set our signal handlers instead of Celery's."""
        self.shutdown.install()
        install_cry_handler()

    def on_consumer_ready(self, consumer: Any) -> None:
        """Say that it consumes; called once, for its first connection."""
        super().on_consumer_ready(consumer)
        queues = ", ".join(self.app.amqp.queues.consume_from)
        self.notifier.tell(READY=1, STATUS=f"consumes {queues}", MAINPID=os.getpid())
        self.notifier.watch(lambda: self.app.pulse.problem() is None)
        if self.one_shot is not None:
            self.one_shot.start()

    def stop(self, *args: Any, **options: Any) -> None:
        """Stop, what concerns RabbitMQ first; called when the loop has ended."""
        self.shutdown.settle()
        super().stop(*args, **options)


def _one_shot(worker: JobWorker, address: Address, queues: list[str]) -> OneShot:
    def end() -> None:
        worker.consumer.call_soon(worker.shutdown.begin)

    return OneShot(address, queues, is_busy=lambda: worker.app.undertaker.busy, drained=end)
