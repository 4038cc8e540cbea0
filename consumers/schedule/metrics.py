"""Metrics of a scheduler for Prometheus, and its answers to probes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from consumers.health import Answer, Health

if TYPE_CHECKING:
    from consumers.schedule.scheduler import Scheduler

# Seconds: a tick is on RabbitMQ within the second that it is due, or there was an outage.
LATE_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 86400.0)


class ScheduleMetrics:
    """Counts what a scheduler publishes.

    Args:
        registry: where the metrics are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._leads = Gauge("rabbitry_schedule_leads", "Whether it leads.", registry=registry)
        self._terms = Counter(
            "rabbitry_schedule_terms_total", "How often it began to lead.", registry=registry
        )
        self._ticks = Counter(
            "rabbitry_schedule_ticks_total",
            "Ticks by outcome: routed, unroutable, rejected or invalid.",
            ["schedule", "outcome"],
            registry=registry,
        )
        self._late = Histogram(
            "rabbitry_schedule_late_seconds",
            "Seconds from when a tick fell due until RabbitMQ had it.",
            ["schedule"],
            buckets=LATE_BUCKETS_S,
            registry=registry,
        )
        self._skipped = Counter(
            "rabbitry_schedule_skipped_total",
            "Ticks that fell due in an outage and are not published.",
            ["schedule"],
            registry=registry,
        )

    def ticked(self, schedule: str, outcome: str, late_s: float) -> None:
        """Count a tick."""
        self._ticks.labels(schedule, outcome).inc()
        if outcome == "routed":
            self._late.labels(schedule).observe(max(0.0, late_s))

    def skipped(self, schedule: str, count: int) -> None:
        """Count ticks that are not published."""
        self._skipped.labels(schedule).inc(count)

    def leads(self, leading: bool) -> None:
        """Note that the scheduler leads, or no longer."""
        self._leads.set(leading)
        if leading:
            self._terms.inc()


def registry_for() -> CollectorRegistry:
    """Return a registry with the process's own memory, files and time."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def serve(scheduler: Scheduler, registry: CollectorRegistry, where: str) -> Health:
    """Answer probes from now on.

    A scheduler is ready when it leads or is next in line: it need not lead.

    Args:
        scheduler: whose health is asked for.
        registry: of its metrics.
        where: ``HOST:PORT`` to listen at.

    Raises:
        WorkerError: the address cannot be listened at.
    """

    def live() -> Answer:
        problem = scheduler.pulse.problem()
        why = {"why": problem} if problem else {}
        return Answer(problem is None, {"live": problem is None, **why})

    def ready() -> Answer:
        state, trouble = scheduler.state, scheduler.pulse.trouble
        good = state in ("leading", "waiting") and scheduler.pulse.problem() is None
        why = {"why": trouble} if trouble and not good else {}
        document = {"ready": good, "scheduler": scheduler.name, "state": state, **why}
        return Answer(good, document)

    health = Health(where, live=live, ready=ready, registry=registry)
    health.start()
    return health
