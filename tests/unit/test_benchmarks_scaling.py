"""What the measurement of growth is made of: a gate, a topology, several tables of one run."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.method import Run
from benchmarks.method.bars import BARS
from benchmarks.scaling import backlog, payload, workers
from benchmarks.scaling.gate import Gate, Gates
from benchmarks.scaling.place import BATCHED, NOOP, PAUSE, TOPOLOGY
from benchmarks.scaling.sheets import Line, Sheets
from broker.topology import Topology
from tests.waiting import until


def test_a_job_waits_at_its_gate_once_until_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates = Gates(tmp_path / "gates")
    for name, value in gates.environment.items():
        monkeypatch.setenv(name, value)
    gate = Gate(NOOP)
    first = threading.Thread(target=gate.enter)
    first.start()
    until(lambda: gates.waiting(NOOP) == 1, timeout_s=30, what="the job at its gate")
    assert gates.waiting(PAUSE) == 0
    assert first.is_alive()
    gates.open(PAUSE)
    assert first.is_alive(), "another job's gate"
    gates.open(NOOP)
    first.join(30)
    assert not first.is_alive()
    monkeypatch.delenv(next(iter(gates.environment)))
    # It does not even ask where the gate is.
    gate.enter()


def test_processes_are_told_apart_at_a_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates = Gates(tmp_path / "gates")
    for name, value in gates.environment.items():
        monkeypatch.setenv(name, value)
    threads = [threading.Thread(target=Gate(NOOP).enter) for _ in range(2)]
    for number, thread in enumerate(threads):
        monkeypatch.setattr(os, "getpid", lambda number=number: number)
        thread.start()
        until(lambda number=number: gates.waiting(NOOP) == number + 1, timeout_s=30, what="it")
    gates.open(NOOP)
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_a_run_is_told_in_each_table_it_belongs_to() -> None:
    value = iter(range(100))

    def runner(who: str) -> Iterator[Line]:
        number = float(next(value))
        yield Line(table="speed", who=who, run=Run(value=number))
        if who == "a":
            yield Line(table="memory", who=who, run=Run(value=10 * number))

    sheets = Sheets({"a": lambda: runner("a"), "b": lambda: runner("b")}, rounds=3)
    speed, memory = sheets.of("speed"), sheets.of("memory")
    assert set(speed) == {"a", "b"}
    assert set(memory) == {"a"}
    told = [speed["a"]() for _ in range(3)]
    assert [10 * run.value for run in told] == [memory["a"]().value for _ in range(3)]
    assert {run.value for run in told} | {speed["b"]().value for _ in range(3)} == set(range(6))


def test_the_first_round_goes_in_the_order_that_was_given() -> None:
    order: list[str] = []

    def runner(who: str) -> Iterator[Line]:
        order.append(who)
        return iter(())

    Sheets({who: lambda who=who: runner(who) for who in "cab"}, rounds=2)
    assert "".join(order) == "cab" + "abc"


def test_a_run_that_would_take_too_long_is_not_begun() -> None:
    bench = SimpleNamespace(rabbitmq=SimpleNamespace(pid=None))
    slow = backlog._Backlog(
        bench=bench, address=None, folder=None, took_s={"Celery: 10,000 jobs": 20.0}
    )
    assert list(slow.run("Celery", backlog.HUNDRED_THOUSAND)) == []
    with pytest.raises(AttributeError):
        # It is begun, and there is no RabbitMQ.
        list(slow.run("rabbitry", backlog.HUNDRED_THOUSAND))


def test_the_jobs_and_daemons_are_of_one_topology() -> None:
    topology = Topology.model_validate(TOPOLOGY)
    assert set(topology.jobs) == {NOOP, PAUSE, BATCHED}


def test_contenders_are_called_as_the_bars_and_the_charts_call_them() -> None:
    runs = {backlog.named(who, count) for who, way in backlog.WAYS.items() for count in way.counts}
    runs |= {backlog.named(backlog.OURS, backlog.MILLION)}
    bars = [bar for bar in BARS if bar.question == "scale"]
    assert {bar.measurement for bar in bars} == {backlog.PUBLISHER, backlog.WORKER}
    assert {name for bar in bars for name in bar.contenders} <= runs
    assert len(payload.SIZES) >= 3 <= len(workers.COUNTS), "places enough for a curve"
    assert set(payload.JOBS) == set(payload.PUBLISHERS) == set(workers.JOBS)
