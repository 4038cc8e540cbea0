"""Metrics of publishing for Prometheus; `Publisher(…, metrics=PublisherMetrics())` keeps them.

Several publishers may share one, and several processes too, in the library's multiprocess mode.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

# Seconds. One confirm takes a few milliseconds; beyond ten seconds something is wrong.
LATENCY_BUCKETS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0),
)


class PublisherMetrics:
    """Counts what became of what was published, and how long it took.

    ========================================  =====================================================
    ``rabbitry_published_total{outcome}``     messages by ``routed``, ``unroutable``, ``rejected``,
                                              ``unknown``
    ``rabbitry_confirm_seconds``              histogram: from handing over to RabbitMQ's confirm
    ``rabbitry_publish_in_flight``            messages whose outcome is not known yet
    ``rabbitry_publish_blocked``              connections that an alarm of RabbitMQ's blocks now
    ``rabbitry_publish_blocked_seconds_total``  seconds of alarms that have ended
    ``rabbitry_publish_reconnects_total``     connections made in place of lost ones
    ========================================  =====================================================

    Args:
        registry: where the metrics are registered; Prometheus' default one.

    Raises:
        ValueError: the registry has such metrics already; share one `PublisherMetrics` instead.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._published = Counter(
            "rabbitry_published_total", "Messages by outcome.", ["outcome"], registry=registry
        )
        self._latency = Histogram(
            "rabbitry_confirm_seconds",
            "Seconds from handing a message over to RabbitMQ's confirm.",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._in_flight = Gauge(
            "rabbitry_publish_in_flight",
            "Messages whose outcome is not known yet.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._blocked = Gauge(
            "rabbitry_publish_blocked",
            "Connections that an alarm of RabbitMQ's blocks now.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._blocked_s = Counter(
            "rabbitry_publish_blocked_seconds_total",
            "Seconds of alarms that have ended.",
            registry=registry,
        )
        self._reconnects = Counter(
            "rabbitry_publish_reconnects_total",
            "Connections made in place of lost ones.",
            registry=registry,
        )

    def handed_over(self) -> None:
        """Count a message that is under way from now on."""
        self._in_flight.inc()

    def ended(self, outcome: str, latencies_s: Sequence[float]) -> None:
        """Count messages that ended alike; only those that RabbitMQ took have a latency."""
        self._published.labels(outcome).inc(len(latencies_s))
        self._in_flight.dec(len(latencies_s))
        if outcome == "routed":
            for latency_s in latencies_s:
                self._latency.observe(latency_s)

    def blocked(self) -> None:
        """Note an alarm that has just begun."""
        self._blocked.inc()

    def unblocked(self, seconds: float) -> None:
        """Count the seconds of an alarm that has just ended."""
        self._blocked.dec()
        self._blocked_s.inc(seconds)

    def reconnected(self) -> None:
        """Count a connection that replaces one that was lost."""
        self._reconnects.inc()
