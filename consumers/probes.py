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
        app: the Celery application, whose `pulse` the worker keeps.
        name: of the worker in the topology.
        spec: of it.
        hostname: ``NAME@HOST``.

    Attributes:
        worker: Celery's, with our `shutdown`; None while there is none yet.
    """

    def __init__(self, app: Any, name: str, spec: WorkerSpec, *, hostname: str) -> None:
        self.worker: Any = None
        self._app = app
        self._name = name
        self._spec = spec
        self._hostname = hostname
        self._pulse = app.pulse

    def serve(self, where: str) -> Health:
        """Count what the worker does, and answer probes from now on.

        Args:
            where: ``HOST:PORT`` to listen at.

        Raises:
            WorkerError: the address cannot be listened at.
        """
        app, spec = self._app, self._spec
        metrics = JobMetrics(
            info={"worker": self._name, "pool": spec.pool, "version": _version()},
            slots=slots_of(spec),
            consuming=self.consuming,
            in_loop=app.pulse if spec.pool in _IN_LOOP else None,
            limit_s=lambda job: app.limits.limit_s(job, spec.queues),
        )
        health = Health(where, live=self.live, ready=self.ready, registry=registry_of(metrics))
        app.observer = metrics
        health.start()
        return health

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
        return Answer(good, {"ready": good, "worker": self._hostname, "queues": queues})

    def consuming(self) -> dict[str, bool]:
        """Return for each queue whether it is consumed."""
        return {queue: state == _CONSUMING for queue, state in self.queues().items()}

    def queues(self) -> dict[str, str]:
        """Return for each queue that it is consumed, or why it is not."""
        problem = self._problem()
        if problem:
            return dict.fromkeys(self._spec.queues, problem)
        tags = self.worker.consumer.task_consumer._active_tags
        lacking = self._pulse.trouble or "not consumed yet"
        return {queue: _CONSUMING if queue in tags else lacking for queue in self._spec.queues}

    def _problem(self) -> str | None:
        """Return what keeps the worker from consuming anything."""
        if self.worker is not None and self.worker.shutdown.began:
            return "the worker stops"
        if stuck := self._pulse.problem():
            return str(stuck)
        consumer = getattr(self.worker, "consumer", None)
        connection = getattr(consumer, "connection", None)
        if connection is None or not connection.connected:
            return f"not connected to RabbitMQ: {self._pulse.trouble or 'connecting'}"
        if getattr(consumer, "task_consumer", None) is None:
            return self._pulse.trouble or "not consumed yet"
        return None


def _version() -> str:
    try:
        return version("rabbitry")
    except PackageNotFoundError:  # pragma: no cover - run from a folder without its metadata
        return "unknown"
