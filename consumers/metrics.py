"""Metrics of a worker for Prometheus.

All is counted in the worker's own process, which every outcome passes, so that there are no files
to share between processes. The numbers are plain ones, and made into Prometheus' when somebody
asks: counting a job costs a few microseconds, and a worker has to count many.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from consumers.observer import JobObserver
from consumers.pulse import Pulse

# Seconds: from a job that does nothing to one of an hour.
BUCKETS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0),
)
_BOUNDS = (*(str(bound) for bound in BUCKETS_S), "+Inf")
# Prometheus itself puts `job` on whatever it scrapes.
_LABELS = ("job_name", "queue")


class Times:
    """How long something took, in buckets."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * len(_BOUNDS)
        self.sum_s = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """Count one, or several that took as long."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += count
        self.sum_s += seconds * count

    def buckets(self) -> list[tuple[str, float]]:
        """Return how many took at most so long, as Prometheus has it."""
        return list(zip(_BOUNDS, map(float, accumulate(self.counts)), strict=True))


class Tally:
    """What became of one job's messages of one queue."""

    __slots__ = ("ended", "outcomes", "ran", "received", "redelivered", "running", "waited")

    def __init__(self) -> None:
        self.received = 0
        self.redelivered = 0
        self.running = 0
        self.ended = 0
        self.outcomes: Counter[str] = Counter()
        self.waited = Times()
        self.ran = Times()


class JobMetrics(JobObserver, Collector):
    """Counts what becomes of a worker's jobs.

    Args:
        info: what the worker is: its name, pool and version.
        slots: how many jobs it runs at a time.
        consuming: by queue, whether it is consumed now.
        in_loop: told of the job that runs, where the worker's loop runs it itself.
        limit_s: how long a job may run, seconds, or None; asked with `in_loop` alone.
    """

    def __init__(
        self,
        *,
        info: Mapping[str, str],
        slots: int,
        consuming: Callable[[], Mapping[str, bool]],
        in_loop: Pulse | None = None,
        limit_s: Callable[[str], float | None] = lambda _: None,
    ) -> None:
        self._info = dict(info)
        self._slots = slots
        self._consuming = consuming
        self._in_loop = in_loop
        self._limit_s = limit_s
        # Jobs end in several threads, where the pool is one of threads.
        self._lock = threading.Lock()
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._dead_letters: Counter[tuple[str, str]] = Counter()
        self._reconnects = 0

    # -- counting -------------------------------------------------------------------------

    def received(self, job: str, queue: str, *, waited_s: float | None, redelivered: bool) -> None:
        """Count a message; the wait of the first delivery alone, later ones waited for a retry."""
        with self._lock:
            tally = self._tally(job, queue)
            tally.received += 1
            if redelivered:
                tally.redelivered += 1
            elif waited_s is not None:
                tally.waited.add(waited_s)

    def began(self, job: str, queue: str, *, count: int = 1) -> None:
        """Count what runs of a job."""
        with self._lock:
            self._tally(job, queue).running += count
        if self._in_loop is not None:
            self._in_loop.busy(self._limit_s(job))

    def ended(
        self, job: str, queue: str, outcome: str, *, ran_s: float | None, count: int = 1
    ) -> None:
        """Count an outcome."""
        with self._lock:
            tally = self._tally(job, queue)
            tally.ended += count
            tally.outcomes[outcome] += count
            if ran_s is not None:
                tally.running -= count
                tally.ran.add(ran_s, count)
        if self._in_loop is not None and ran_s is not None:
            self._in_loop.free()

    def dead_lettered(self, queue: str, reason: str) -> None:
        """Count a dead letter that RabbitMQ has confirmed."""
        with self._lock:
            self._dead_letters[queue, reason] += 1

    def reconnected(self) -> None:
        """Count a connection that replaces one that was lost."""
        with self._lock:
            self._reconnects += 1

    def _tally(self, job: str, queue: str) -> Tally:
        tally = self._tallies.get((job, queue))
        if tally is None:
            tally = self._tallies[job, queue] = Tally()
        return tally

    # -- telling --------------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        with self._lock:
            tallies = list(self._tallies.items())
            dead_letters = list(self._dead_letters.items())
            # Copies: what is yielded is read when counting goes on.
            waited = [(key, each.waited.buckets(), each.waited.sum_s) for key, each in tallies]
            ran = [(key, each.ran.buckets(), each.ran.sum_s) for key, each in tallies]
            counts = [
                (key, each.received, each.redelivered, each.received - each.ended, each.running)
                for key, each in tallies
            ]
            outcomes = [((*key, word), n) for key, t in tallies for word, n in t.outcomes.items()]
        yield InfoMetricFamily("rabbitry_worker", "What the worker is.", self._info)
        yield _gauge("slots", "Jobs that it runs at a time.", (), [((), self._slots)])
        consuming = [((queue,), int(now)) for queue, now in self._consuming().items()]
        yield _gauge("consuming", "Whether a queue is consumed now.", ("queue",), consuming)
        yield _counter(
            "received",
            "Messages that came into its hands.",
            _LABELS,
            [(key, received) for key, received, *_ in counts],
        )
        yield _counter(
            "redelivered",
            "Of these, messages that RabbitMQ had delivered before.",
            _LABELS,
            [(key, redelivered) for key, _, redelivered, *_ in counts],
        )
        yield _gauge(
            "in_flight",
            "Messages in its hands now.",
            _LABELS,
            [(key, in_flight) for key, _, _, in_flight, _ in counts],
        )
        yield _gauge(
            "running",
            "Jobs that run now.",
            _LABELS,
            [(key, running) for key, _, _, _, running in counts],
        )
        yield _counter(
            "jobs",
            "Deliveries that ended: done, retried, dead, answered, returned or revoked.",
            (*_LABELS, "outcome"),
            outcomes,
        )
        yield _histogram(
            "wait_seconds",
            "Seconds from when a job was published, or due, until it was first received.",
            waited,
        )
        yield _histogram("run_seconds", "Seconds that a job ran.", ran)
        yield _counter(
            "dead_letters",
            "Dead letters that RabbitMQ has confirmed, by reason.",
            ("queue", "reason"),
            dead_letters,
        )
        yield _counter(
            "reconnects",
            "Connections to RabbitMQ made in place of lost ones.",
            (),
            [((), self._reconnects)],
        )


def registry_of(collector: Collector) -> CollectorRegistry:
    """Return a registry of its own, with a collector and the process's memory, files and time."""
    from prometheus_client import ProcessCollector

    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    return registry


Samples = Iterable[tuple[tuple[str, ...], int]]


def _counter(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    family = CounterMetricFamily(f"rabbitry_worker_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    family = GaugeMetricFamily(f"rabbitry_worker_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _histogram(
    name: str,
    text: str,
    samples: Iterable[tuple[tuple[str, str], list[tuple[str, float]], float]],
) -> Metric:
    family = HistogramMetricFamily(f"rabbitry_worker_{name}", text, labels=_LABELS)
    for values, buckets, sum_s in samples:
        family.add_metric(values, buckets, sum_s)
    return family
