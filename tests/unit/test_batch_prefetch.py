"""A worker with batch jobs holds as many messages as its batches take."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from broker.topology.model import WorkerSpec
from consumers.batch.prefetch import calls_held, widened
from consumers.batch.task import BatchTask

QUEUES = ["high", "low"]
SHARES = {"high": 3, "low": 1}


def app(size: int, *queues: str) -> SimpleNamespace:
    task = BatchTask()
    task.name, task.size = "test.job", size
    limits = SimpleNamespace(queues_of={"test.job": queues})
    return SimpleNamespace(tasks={"test.job": task, "other": object()}, limits=limits)


@pytest.mark.parametrize(
    ("pool", "held", "calls"), [("prefork", 500, 9), ("threads", 500, 9), ("solo", 200, 6)]
)
def test_all_slots_run_a_batch_while_another_gathers_and_other_queues_stay(
    pool, held, calls
) -> None:
    spec = WorkerSpec(queues=QUEUES, concurrency=4, pool=pool)
    wide = widened(SHARES, spec, app(100, "low", "elsewhere"))
    assert wide == {"high": 3, "low": held}
    assert calls_held(SHARES, wide, spec) == calls


def test_amqp_knows_no_larger_prefetch() -> None:
    spec = WorkerSpec(queues=["low"], concurrency=20)
    assert widened({"low": 20}, spec, app(10_000, "low")) == {"low": 65_535}


def test_a_prefetch_of_the_file_holds_and_what_it_keeps_small_is_told(caplog) -> None:
    spec = WorkerSpec(queues=["low"], concurrency=2, prefetch=50)
    with caplog.at_level(logging.WARNING):
        assert widened({"low": 50}, spec, app(50, "low")) == {"low": 50}
        assert not caplog.records
        wide = widened({"low": 50}, spec, app(51, "low"))
    assert wide == {"low": 50}
    assert calls_held({"low": 50}, wide, spec) == 50
    assert "prefetch for queue low is 50, and a batch has up to 51" in caplog.text
