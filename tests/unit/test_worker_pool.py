"""A worker refuses jobs that its pool cannot run as they ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.connection import Address
from broker.errors import WorkerError
from consumers.checks import check_pool
from consumers.factory import make_app
from consumers.job import job
from tests.provision import topology_of

FILE = """
version: 1
name: pools
vhost: {{name: pools, default_queue_type: quorum}}
exchanges: {{jobs: {{type: topic}}}}
queues:
  here: {{bindings: [{{exchange: jobs, routing_key: "here"}}]}}
  there: {{bindings: [{{exchange: jobs, routing_key: "there"}}]}}
jobs:
  pools.plain: {{exchange: jobs, routing_key: here}}
  pools.coroutine: {{exchange: jobs, routing_key: here}}
  pools.limited: {{exchange: jobs, routing_key: there, time_limit: 5s}}
workers:
  one: {{queues: [{queue}], pool: {pool}}}
"""


@job("pools.coroutine")
async def coroutine() -> None:
    """Do nothing, at some time."""


def check(folder: Path, *, pool: str, queue: str = "here") -> None:
    topology, _ = topology_of(folder, FILE.format(pool=pool, queue=queue))
    app = make_app(topology, Address.parse("amqp://localhost/"))
    app.finalize()
    check_pool(app, topology, "one")


def test_gevent_refuses_an_async_task_and_others_run_it(tmp_path) -> None:
    for pool in ("prefork", "threads", "solo"):
        check(tmp_path, pool=pool)
    with pytest.raises(WorkerError, match=r"job 'pools\.coroutine' is an `async def`"):
        check(tmp_path, pool="gevent")


def test_only_prefork_takes_a_time_limit_and_only_of_its_own_queues(tmp_path) -> None:
    check(tmp_path, pool="prefork", queue="there")
    for pool in ("threads", "solo"):
        with pytest.raises(WorkerError, match=r"job 'pools\.limited' has a time limit of 5 s"):
            check(tmp_path, pool=pool, queue="there")
