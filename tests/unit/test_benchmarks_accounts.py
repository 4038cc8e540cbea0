"""The account of the jobs that benchmarks let workers run, and what their jobs compute."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from benchmarks import publish
from benchmarks.batched import classes
from benchmarks.consumers.account import Account
from benchmarks.consumers.accounts import Accounts
from benchmarks.consumers.place import TOPOLOGY
from benchmarks.publishers import C, Order, blocking, gathered, own, pipelined
from broker.topology import Topology

JOBS = 1_000


@pytest.fixture
def accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Accounts:
    found = Accounts(tmp_path / "accounts", JOBS)
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    return found


def order(*, numbered: bool) -> Order:
    return Order(
        url="amqp://localhost/",
        job="bench.job",
        queue="jobs.normal",
        exchange="jobs",
        routing_key="normal",
        count=JOBS,
        size_bytes=300,
        numbered=numbered,
    )


def test_all_threads_together_account_for_every_job(accounts: Accounts) -> None:
    account = Account()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(account.add, order(numbered=True).arguments(JOBS)))
    assert accounts.seen() == JOBS
    assert accounts.done_and_twice() == (JOBS, 0)


def test_a_job_that_is_run_again_does_not_stand_for_one_that_is_lost(accounts: Accounts) -> None:
    account = Account()
    first, second, *_ = order(numbered=True).arguments(3)
    account.add_all([first, second, first])
    assert accounts.seen() == 3
    assert accounts.done_and_twice() == (2, 1)


def test_a_process_that_was_forked_has_an_account_of_its_own(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account()
    account.add("00000001")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    account.add(b"00000001")
    assert accounts.done_and_twice() == (1, 1)


def test_arguments_are_as_long_as_they_are_ordered_and_numbered_if_wanted() -> None:
    numbered = list(order(numbered=True).arguments(JOBS))
    assert [int(each[:8]) for each in numbered] == list(range(JOBS))
    same = list(order(numbered=False).arguments(JOBS))
    assert len(set(same)) == 1
    assert {len(each) for each in (*numbered, *same)} == {300}


def test_a_text_has_the_same_class_alone_and_in_a_batch() -> None:
    random = np.random.default_rng(1)
    texts = [bytes(each).decode() for each in random.integers(32, 127, (100, 256), dtype=np.uint8)]
    together = classes(texts)
    assert together.tolist() == [int(classes([text])[0]) for text in texts]
    assert len(set(together.tolist())) > 1


def test_every_contender_of_publishing_has_its_function() -> None:
    rooms = (own, blocking, gathered, pipelined)
    for contender in (*publish.CONTENDERS.values(), *publish.ONE_BY_ONE.values()):
        found = [room for room in rooms if hasattr(room, contender.name)]
        assert len(found) == (0 if contender.name == C else 1), contender.name


def test_the_topology_of_the_workers_is_one() -> None:
    Topology.model_validate(TOPOLOGY)
