"""What a worker tells of its health: whether it lives, whether it is ready, and its metrics."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from broker.topology.model import WorkerSpec
from broker.topology.shares import slots_of
from consumers.health import Answer, Health
from consumers.metrics import JobMetrics, registry_of

_CONSUMING = "consuming"
# Pools whose jobs run in the worker's loop itself, which does not turn meanwhile.
_IN_LOOP = ("solo",)


class Probes:
    """Looks at a worker, from another thread, without asking it or RabbitMQ anything.

    Args:
        worker: Celery's, with our `shutdown`.
        queues: that it is to consume.
    """

    def __init__(self, worker: Any, queues: list[str]) -> None:
        self._worker = worker
        self._queues = queues
        self._pulse = worker.app.pulse

    def live(self) -> Answer:
        """Say whether the loop turns; a connection to RabbitMQ is not needed for that."""
        problem = self._pulse.problem()
        return Answer(
            problem is None, {"live": problem is None} | ({"why": problem} if problem else {})
        )

    def ready(self) -> Answer:
        """Say whether each queue is consumed, and where one is not, why."""
        queues = self.queues()
        good = all(each == _CONSUMING for each in queues.values())
        return Answer(good, {"ready": good, "worker": self._worker.hostname, "queues": queues})

    def consuming(self) -> dict[str, bool]:
        """Return for each queue whether it is consumed."""
        return {queue: state == _CONSUMING for queue, state in self.queues().items()}

    def queues(self) -> dict[str, str]:
        """Return for each queue that it is consumed, or why it is not."""
        problem = self._problem()
        if problem:
            return dict.fromkeys(self._queues, problem)
        tags = self._worker.consumer.task_consumer._active_tags
        lacking = self._pulse.trouble or "not consumed yet"
        return {queue: _CONSUMING if queue in tags else lacking for queue in self._queues}

    def _problem(self) -> str | None:
        """Return what keeps the worker from consuming anything."""
        if self._worker.shutdown.began:
            return "the worker stops"
        if stuck := self._pulse.problem():
            return str(stuck)
        consumer = getattr(self._worker, "consumer", None)
        connection = getattr(consumer, "connection", None)
        if connection is None or not connection.connected:
            return f"not connected to RabbitMQ: {self._pulse.trouble or 'connecting'}"
        if getattr(consumer, "task_consumer", None) is None:
            return self._pulse.trouble or "not consumed yet"
        return None


def watch(worker: Any, name: str, spec: WorkerSpec, where: str) -> Health:
    """Count what a worker does, and answer probes from now on.

    Args:
        worker: Celery's, not started yet.
        name: of the worker in the topology.
        spec: of it.
        where: ``HOST:PORT`` to listen at.

    Raises:
        WorkerError: the address cannot be listened at.
    """
    app, probes = worker.app, Probes(worker, spec.queues)
    metrics = JobMetrics(
        info={"worker": name, "pool": spec.pool, "version": _version()},
        slots=slots_of(spec),
        consuming=probes.consuming,
        in_loop=app.pulse if spec.pool in _IN_LOOP else None,
        limit_s=lambda job: app.limits.limit_s(job, spec.queues),
    )
    health = Health(where, live=probes.live, ready=probes.ready, registry=registry_of(metrics))
    app.observer = metrics
    health.start()
    return health


def _version() -> str:
    try:
        return version("rabbitry")
    except PackageNotFoundError:  # pragma: no cover - run from a folder without its metadata
        return "unknown"
