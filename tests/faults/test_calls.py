"""Calls while workers are killed: each reply to its own call, outcomes that add up, flat memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from broker.errors import CallTimeout, OutcomeUnknown, RabbitryError
from broker.management import Management
from producers.caller import Caller
from tests.end_to_end.conftest import Daemon
from tests.integration.answering import reply_queues
from tests.integration.conftest import Provisioned
from tests.processes import children_of
from tests.provision import consumers_of, provision, topology_of
from tests.waiting import until

# Who is killed again and again must not use up the attempts of a call.
TOPOLOGY = """
version: 1
name: calls
vhost: {name: unused, default_queue_type: quorum}
exchanges:
  jobs: {type: topic}
  jobs.dead: {type: topic}
queues:
  jobs.normal:
    bindings: [{exchange: jobs, routing_key: "normal.#"}]
    retry: {delay: 100ms, max_delay: 200ms, limit: 20}
    dead_letter: {exchange: jobs.dead}
  jobs.dead: {bindings: [{exchange: jobs.dead, routing_key: "#"}]}
jobs:
  demo.echo: {task: "consumers.jobs.demo:echo", exchange: jobs, routing_key: normal.demo.echo}
workers:
  threads: {queues: [jobs.normal], pool: threads, concurrency: 4, prefetch: 100}
  processes: {queues: [jobs.normal], pool: prefork, concurrency: 2, prefetch: 100}
"""
THREADS = 8
# Of each thread, under way at a time.
PIPELINE = 50
CALL_TIMEOUT_S = 20
# Of the calls the last so many are made in peace, so that memory can be compared.
PEACE = 0.4
GROWTH_BYTES = 24 * 2**20
SOAKING = int(os.environ.get("RABBITRY_TEST_CALLS") or 500_000)


@pytest.fixture
def provisioned(rabbitmq: Any, vhost: str, tmp_path: Path, monkeypatch: Any) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    topology, path = topology_of(tmp_path, TOPOLOGY)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


class Load:
    """Threads that call and keep account of what became of each call."""

    def __init__(self, caller: Caller, count: int) -> None:
        self._caller = caller
        self._each = count // THREADS
        self._account: list[Counter[str]] = [Counter() for _ in range(THREADS)]
        self.threads = [
            threading.Thread(target=self._work, args=(number,)) for number in range(THREADS)
        ]

    @property
    def outcomes(self) -> Counter[str]:
        return sum(self._account, Counter())

    @property
    def done(self) -> int:
        return sum(sum(each.values()) for each in self._account)

    def _work(self, number: int) -> None:
        account = self._account[number]
        for start in range(0, self._each, PIPELINE):
            values = [[number, n] for n in range(start, min(start + PIPELINE, self._each))]
            calls = [
                self._caller.submit("demo.echo", value, timeout_s=CALL_TIMEOUT_S)
                for value in values
            ]
            for value, call in zip(values, calls, strict=True):
                try:
                    account["right" if call.result() == value else "wrong"] += 1
                except CallTimeout:
                    account["no reply"] += 1
                except RabbitryError as exc:
                    account[type(exc).__name__] += 1


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and its children."""
    pages = sum(
        int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in (pid, *children_of(pid))
    )
    return pages * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize(
    ("worker", "count", "kills"),
    [
        ("processes", 5_000, 2),
        pytest.param("threads", 5_000, 2, marks=pytest.mark.soak),
        *(
            pytest.param(
                *(worker, SOAKING // 2, 20), marks=[pytest.mark.soak, pytest.mark.timeout(3600)]
            )
            for worker in ("processes", "threads")
        ),
    ],
)
def test_each_reply_comes_to_its_own_call_while_workers_are_killed(
    provisioned: Provisioned,
    env: dict[str, str],
    tmp_path: Path,
    worker: str,
    count: int,
    kills: int,
) -> None:
    daemons: list[Daemon] = []

    def start() -> Daemon:
        daemon = Daemon(
            [sys.executable, "-m", "rabbitry", "worker", "run", worker],
            env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path)},
            log=tmp_path / f"worker-{len(daemons)}.log",
            cwd=tmp_path,
        )
        daemons.append(daemon)
        return daemon

    def consuming() -> bool:
        assert daemons[-1].process.poll() is None, daemons[-1].log
        return consumers_of(provisioned.address, "jobs.normal") > 0

    def reached(share: float, timeout_s: float = 600) -> None:
        until(lambda: load.done >= share * count, timeout_s, f"{share:.0%} of the calls")

    memory: list[tuple[int, int]] = []
    start()
    until(consuming, timeout_s=40, what="the worker to consume")
    try:
        with Caller(provisioned.topology, provisioned.url) as caller:
            load = Load(caller, count)
            for thread in load.threads:
                thread.start()
            for kill in range(kills):
                reached((1 - PEACE) * (kill + 1) / (kills + 1))
                daemons[-1].end()
                start()
            for share in (1 - PEACE * 3 / 4, 0.99):
                reached(share)
                pid = daemons[-1].process.pid
                memory.append((resident_bytes(os.getpid()), resident_bytes(pid)))
            for thread in load.threads:
                thread.join()
            left = caller._line._calls.take_all()
            unknown = caller.unknown_replies
    finally:
        for daemon in daemons:
            daemon.end()
    outcomes = load.outcomes
    sys.stdout.write(f"{dict(outcomes)}, replies to nobody {unknown}, bytes {memory}\n")
    assert left == []
    assert outcomes["wrong"] == 0
    assert outcomes.total() == count
    # What a killed worker had is run again, unless RabbitMQ has its reply.
    assert outcomes["right"] == count
    (caller_before, worker_before), (caller_after, worker_after) = memory
    assert caller_after - caller_before < GROWTH_BYTES
    assert worker_after - worker_before < GROWTH_BYTES


CALLING = """
import sys, time
from broker.topology import Topology
from producers.caller import Caller

caller = Caller(Topology.load(sys.argv[1]))
caller.connect()
print(caller.reply_to, flush=True)
sys.stdin.read()
"""


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_a_minute_after_a_caller_was_killed_its_queue_is_gone(
    provisioned: Provisioned, env: dict[str, str]
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CALLING, str(provisioned.path)],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process, Management(provisioned.address) as management:
        assert process.stdout is not None
        queue = process.stdout.readline().strip()
        assert reply_queues(management) == [queue]
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed = time.monotonic()
        until(lambda: not reply_queues(management), timeout_s=90, what="the queue to go")
        assert time.monotonic() - killed > 30


def test_without_a_worker_a_call_ends_at_its_timeout(provisioned: Provisioned) -> None:
    with Caller(provisioned.topology, provisioned.url) as caller:
        caller.connect()
        late: list[float] = []
        for timeout_s in (0.1, 0.2, 0.3, 0.4, 0.5):
            started = time.monotonic()
            with pytest.raises((CallTimeout, OutcomeUnknown)):
                caller.call("demo.echo", timeout_s=timeout_s)
            late.append(time.monotonic() - started - timeout_s)
    # The machine may have had something else to do for once.
    assert sorted(late)[0] > -0.001
    assert sorted(late)[2] < 0.05, late
