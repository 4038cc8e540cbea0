"""Makes the Celery application of a topology."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

from celery import Celery
from celery.exceptions import DuplicateTaskNameWarning
from kombu import Exchange, Queue

from broker.body import register_with_kombu
from broker.connection import HEARTBEAT_S, Address, py_amqp_tls
from broker.contracts import contracts_of
from broker.topology import Topology
from consumers.cancel.jobs import CancelledJobs
from consumers.cancel.reader import Reader
from consumers.delays import Waiting, WaitingAMQP
from consumers.failure.undertaker import Undertaker
from consumers.kept import Kept, content_types_of, serializers_of
from consumers.limits import Limits
from consumers.observer import JobObserver
from consumers.once.chosen import ChosenStore
from consumers.pulse import Pulse
from consumers.replies_sender import ReplySender

SERIALIZERS = ("json", "msgpack", "rabbitry-json", "rabbitry-msgpack")

# Looks in the time of one heartbeat.
HEARTBEAT_CHECKS = 10
# Celery's ten seconds are as long for jobs behind a killed one.
LOST_WAIT_S = 1.0


class JobApp(Celery):  # type: ignore[misc]
    """Celery's application, which also notes jobs that two functions want to be.

    Attributes:
        rivals: by job, all of them, as ``module:function``; Celery takes one, and says nothing.
        kept: which results are kept, and where; None where none are.
    """

    kept: Kept | None = None

    @property
    def thread_oid(self) -> str:
        """Return where what this application sends is replied to; nowhere where results are kept.

        Celery asks for a reply whatever its backend is.
        """
        return "" if self.kept is not None else str(super().thread_oid)

    def __init__(self, *args: Any, **options: Any) -> None:
        self.rivals: dict[str, set[str]] = {}
        super().__init__(*args, **options)

    def _task_from_fun(self, fun: Any, name: str | None = None, **options: Any) -> Any:
        with warnings.catch_warnings():
            # Whoever makes workers of it has an error for that.
            warnings.simplefilter("ignore", DuplicateTaskNameWarning)
            task = super()._task_from_fun(fun, name=name, **options)
        both = {
            f"{each.__module__}:{each.__qualname__}" for each in (inspect.unwrap(task.run), fun)
        }
        if len(both) > 1:
            self.rivals.setdefault(task.name, set()).update(both)
        return task


def make_app(topology: Topology, address: Address) -> Celery:
    """Return a Celery application that consumes a topology's queues and declares nothing.

    Args:
        topology: its queues become the application's, its jobs the routes and the imports.
        address: where RabbitMQ is.
    """
    register_with_kombu()
    contracts = contracts_of(topology)
    # Reads the certificates, and says which cannot be read.
    tls = address.ssl_context()
    kept = Kept.of(topology)
    app = JobApp(
        topology.name,
        # Celery takes the rest of it for options of its own.
        broker=address.url.partition("?")[0],
        backend=f"consumers.{'replies:ReplyBackend' if kept is None else 'results:StoringBackend'}",
        amqp=WaitingAMQP,
    )
    app.observer = JobObserver()
    app.pulse = Pulse()
    app.waiting = Waiting(topology, address)
    app.undertaker = Undertaker(topology, address)
    app.limits = Limits(topology, app.undertaker.rules)
    app.once = ChosenStore(topology)
    app.cancelled = CancelledJobs()
    app.cancellations = Reader(topology, address, app.cancelled)
    app.kept = kept
    app.content_types = content_types_of(topology)
    app.replies = ReplySender(address)
    accepted = serializers_of(topology, SERIALIZERS)
    if kept is not None:
        app.conf.update(kept.settings(), task_annotations=kept.unwanted(topology))
    app.conf.update(
        broker_use_ssl=py_amqp_tls(address) if tls else None,
        broker_heartbeat=HEARTBEAT_S,
        # An idle worker sends something every four seconds at least: what is not acknowledged
        # within one (py-amqp's TCP_USER_TIMEOUT) tells it of a network that is cut.
        broker_heartbeat_checkrate=HEARTBEAT_CHECKS,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_queues=[
            # Celery knows a quorum queue by its type as an argument, and would then delay tasks
            # its own way, which delivers them to other queues as well; nothing is declared.
            Queue(name, Exchange("", no_declare=True), routing_key=name, no_declare=True)
            for name in topology.queues
        ],
        task_routes={
            contract.name: {
                "exchange": Exchange(contract.exchange, no_declare=True),
                "routing_key": contract.routing_key,
                "priority": contract.priority,
            }
            for contract in contracts.values()
        },
        task_default_queue=next(iter(topology.queues), None),
        task_create_missing_queues=False,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        # How long the result of a child that is gone may still be on its way.
        worker_lost_wait=LOST_WAIT_S,
        task_serializer="json",
        result_serializer="json",
        accept_content=accepted,
        result_accept_content=accepted,
        worker_consumer="consumers.consumer:JobConsumer",
        worker_prefetch_multiplier=1,
        worker_detect_quorum_queues=False,
        worker_enable_remote_control=any(
            worker.remote_control for worker in topology.workers.values()
        ),
        # An exclusive control queue locks a reconnecting worker out of its own name.
        control_queue_exclusive=False,
        control_queue_durable=True,
        include=task_modules(topology),
    )
    return app


def task_modules(topology: Topology) -> list[str]:
    """Return the modules that the topology's tasks are defined in, each once, in order."""
    modules: dict[str, Any] = {}
    for job in topology.jobs.values():
        if job.task:
            modules[job.task.partition(":")[0]] = None
    return list(modules)
