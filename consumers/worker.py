"""One worker daemon: a Celery worker for the queues that the topology gives it."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from typing import Any

from celery import Celery
from celery.apps.worker import Worker, install_cry_handler
from celery.utils.nodenames import default_nodename, host_format

from broker.connection import Address, connect, translated
from broker.errors import MissingOnBroker, WorkerError, did_you_mean
from broker.topology import Topology
from broker.topology.model import WorkerSpec
from consumers.factory import make_app
from consumers.limits import Limits
from consumers.once.task import check_store
from consumers.prefetch import shares_for
from consumers.shutdown import Shutdown


def run_worker(topology: Topology, address: Address, name: str, *, loglevel: str) -> int:
    """Run one worker until it is told to stop; returns its exit code.

    Args:
        topology: says which queues it consumes and how.
        address: where RabbitMQ is.
        name: of the worker in the topology.
        loglevel: ``DEBUG``, ``INFO``, ``WARNING`` or ``ERROR``.

    Raises:
        WorkerError: there is no such worker, its tasks cannot be imported, its pool cannot run
            them as they ask for, or what is finished of them cannot be recorded.
        MissingOnBroker: a queue does not exist.
        Unreachable, AccessRefused, VirtualHostMissing: no connection.
    """
    spec = worker_of(topology, name)
    if spec.pool == "gevent" and importlib.util.find_spec("gevent") is None:
        raise WorkerError(f"worker {name!r} uses the pool gevent: `pip install gevent` first")
    shares = shares_for(topology, name)
    app = make_app(topology, address)
    app.conf.worker_enable_remote_control = spec.remote_control
    load_tasks(app, topology)
    default_s = None if spec.time_limit is None else spec.time_limit.total_seconds()
    app.limits = Limits(topology, app.undertaker.rules, default_s=default_s)
    check_pool(app, topology, name)
    check_store(app)
    check_queues(address, spec.queues)
    worker = JobWorker(
        app=app,
        hostname=host_format(default_nodename(f"{name}@%h")),
        pool=spec.pool,
        concurrency=spec.concurrency,
        queues=spec.queues,
        loglevel=loglevel,
        quiet=True,
    )
    # Read by JobConsumer: what RabbitMQ may hand over ahead, together and of each queue.
    worker.prefetch, worker.shares = sum(shares.values()), shares
    worker.shutdown = Shutdown(worker, grace_s=spec.grace.total_seconds())
    worker.start()
    return int(worker.exitcode or 0)


class JobWorker(Worker):  # type: ignore[misc]
    """Celery's worker with our own way to stop."""

    shutdown: Shutdown

    def install_platform_tweaks(self, worker: Any) -> None:
        """Set our signal handlers instead of Celery's."""
        self.shutdown.install()
        install_cry_handler()


def worker_of(topology: Topology, name: str) -> WorkerSpec:
    """Return a worker of the topology. Raises WorkerError where it has none of this name."""
    spec = topology.workers.get(name)
    if spec is None:
        raise WorkerError(
            f"the topology has no worker {name!r}{did_you_mean(name, topology.workers)};"
            f" it has: {', '.join(topology.workers) or 'none'}"
        )
    return spec


def load_tasks(app: Celery, topology: Topology) -> None:
    """Import the tasks of all jobs and check that each is the one its job names.

    Raises:
        WorkerError: names the job and what is wrong; an error of the import is chained.
    """
    for name, spec in topology.jobs.items():
        if spec.task is None:
            continue
        module_name, _, attribute = spec.task.partition(":")
        try:
            module: Any = importlib.import_module(module_name)
        # Importing runs the user's code, which may raise anything.
        except Exception as exc:
            raise WorkerError(
                f"the task {spec.task!r} of job {name!r} cannot be imported:"
                f" {type(exc).__name__}: {exc}; --debug shows where"
            ) from exc
        task = getattr(module, attribute, None)
        if task is None:
            raise WorkerError(f"job {name!r}: the module {module_name!r} has no {attribute!r}")
        if getattr(task, "name", None) != name:
            raise WorkerError(
                f"job {name!r}: {spec.task!r} is not its task; decorate it with @job({name!r})"
            )
    app.finalize()


def check_pool(app: Celery, topology: Topology, name: str) -> None:
    """Check that a worker's pool can do what its jobs ask for.

    Raises:
        WorkerError: names the job, what it asks for, and what to change.
    """
    spec = topology.workers[name]
    if spec.pool != "prefork":
        for job in topology.jobs:
            limit_s = app.limits.stated_s(job, spec.queues)
            if limit_s is not None:
                raise WorkerError(
                    f"job {job!r} has a time limit of {limit_s:g} s, and the pool {spec.pool} of"
                    f" worker {name!r} cannot end a job: use the pool prefork, or run the job on"
                    " another worker"
                )
    if spec.pool == "gevent":
        for job in topology.jobs:
            task = app.tasks.get(job)
            if task is not None and inspect.iscoroutinefunction(task.run):
                raise WorkerError(
                    f"job {job!r} is an `async def`, of which the pool gevent of worker {name!r}"
                    " cannot run two at a time: use the pool prefork, threads or solo"
                )


def check_queues(address: Address, queues: list[str]) -> None:
    """Check passively that queues exist; nothing is declared.

    Raises:
        MissingOnBroker: one does not.
    """
    from amqp.exceptions import NotFound

    connection = connect(address)
    try:
        for queue in queues:
            with translated(address), connection.channel() as channel:
                try:
                    channel.queue_declare(queue, passive=True)
                except NotFound as exc:
                    raise MissingOnBroker(
                        f"the queue {queue!r} does not exist in virtual host"
                        f" {address.vhost_name!r}; `rabbitry topology apply` creates it"
                    ) from exc
    finally:
        connection.release()
