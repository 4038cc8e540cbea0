"""What a worker counts, as Prometheus reads it."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from consumers.metrics import BUCKETS_S, JobMetrics, registry_of
from consumers.pulse import Pulse

Value = dict[tuple[tuple[str, str], ...], float]


def metrics(**options) -> JobMetrics:
    info = {"worker": "normal", "pool": "prefork", "version": "1"}
    return JobMetrics(info=info, slots=2, consuming=lambda: {"q": True, "r": False}, **options)


def read(of: JobMetrics) -> dict[str, Value]:
    """Return the samples of each name, by their labels."""
    found: dict[str, Value] = defaultdict(dict)
    for family in text_string_to_metric_families(generate_latest(registry_of(of)).decode()):
        for sample in family.samples:
            name = sample.name.removeprefix("rabbitry_worker_")
            found[name][tuple(sorted(sample.labels.items()))] = sample.value
    return found


def values(of: JobMetrics, name: str) -> Value:
    return read(of)[name]


def total(of: JobMetrics, name: str) -> float:
    return sum(values(of, name).values())


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", ""]),
        st.sampled_from(["q", "r"]),
        st.booleans(),
        st.one_of(st.none(), st.floats(0, 1e5)),
        st.one_of(st.none(), st.floats(0, 1e5)),
        st.sampled_from(["done", "retried", "dead", "answered", "returned", None]),
    ),
    max_size=40,
)


# The machine's pace is no property of the code.
@settings(deadline=None)
@given(EVENTS)
def test_whatever_happens_received_is_ended_and_in_flight(events) -> None:
    counted = metrics()
    outcomes: Counter[str | None] = Counter()
    began = 0
    for job, queue, redelivered, waited_s, ran_s, outcome in events:
        counted.received(job, queue, waited_s=waited_s, redelivered=redelivered)
        if ran_s is not None:
            counted.began(job, queue)
            began += 1
        if outcome is not None:
            counted.ended(job, queue, outcome, ran_s=ran_s)
        outcomes[outcome] += 1
    found = Counter({name: sum(each.values()) for name, each in read(counted).items()})
    assert found["received_total"] == len(events)
    assert found["in_flight"] == outcomes[None]
    assert found["running"] == began - found["run_seconds_count"]
    assert found["jobs_total"] == len(events) - outcomes[None]
    waited = [each for each in events if not each[2] and each[3] is not None]
    assert found["wait_seconds_count"] == len(waited)
    assert found["redelivered_total"] == sum(each[2] for each in events)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e5), max_size=50))
def test_buckets_count_what_took_at_most_so_long(seconds: list[float]) -> None:
    counted = metrics()
    for each in seconds:
        counted.ended("a", "q", "done", ran_s=each)
    found = {dict(key)["le"]: value for key, value in values(counted, "run_seconds_bucket").items()}
    if seconds:
        assert found.pop("+Inf") == len(seconds)
        for bound in BUCKETS_S:
            assert found.pop(str(bound)) == sum(each <= bound for each in seconds)
    assert found == {}


def test_buckets_rise_from_a_millisecond_to_an_hour() -> None:
    assert BUCKETS_S[0] == 0.001
    assert BUCKETS_S[-1] == 3600
    assert all(one < other for one, other in pairwise(BUCKETS_S))


def test_what_ends_in_many_threads_is_counted_once_each() -> None:
    counted = metrics()

    def work() -> None:
        for _ in range(2000):
            counted.received("a", "q", waited_s=0.1, redelivered=False)
            counted.began("a", "q")
            counted.ended("a", "q", "done", ran_s=0.1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total(counted, "jobs_total") == total(counted, "received_total") == 8000
    assert total(counted, "in_flight") == total(counted, "running") == 0


def test_what_a_worker_is_and_consumes_is_told() -> None:
    counted = metrics()
    (info,) = values(counted, "info")
    assert dict(info) == {"worker": "normal", "pool": "prefork", "version": "1"}
    assert total(counted, "slots") == 2
    assert values(counted, "consuming") == {(("queue", "q"),): 1, (("queue", "r"),): 0}
    counted.dead_lettered("q", "limit")
    counted.reconnected()
    assert values(counted, "dead_letters_total") == {(("queue", "q"), ("reason", "limit")): 1}
    assert total(counted, "reconnects_total") == 1


def test_a_batch_is_counted_as_its_messages() -> None:
    one_by_one, together = metrics(), metrics()
    for _ in range(3):
        one_by_one.began("a", "q")
        one_by_one.ended("a", "q", "done", ran_s=0.25)
    together.began("a", "q", count=3)
    assert total(together, "running") == 3
    together.ended("a", "q", "done", ran_s=0.25, count=3)
    for name in ("running", "in_flight", "jobs_total", "run_seconds_bucket", "run_seconds_sum"):
        assert values(together, name) == values(one_by_one, name)


def test_a_pool_that_runs_jobs_in_the_loop_keeps_the_pulse_busy() -> None:
    now = [0.0]
    pulse = Pulse(stuck_s=30, clock=lambda: now[0])
    counted = metrics(in_loop=pulse, limit_s=lambda job: {"a": 60.0}[job])
    counted.began("a", "q")
    now[0] = 89.0
    assert pulse.problem() is None
    now[0] = 91.0
    assert pulse.problem() is not None
    counted.ended("a", "q", "done", ran_s=91.0)
    assert pulse.problem() is None
