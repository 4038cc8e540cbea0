"""A worker survives the moment in which its queue is replaced."""

from __future__ import annotations

from broker.management import Management
from producers.caller import Caller
from tests.provision import consumers_of, provision
from tests.waiting import until


def test_a_worker_outlives_its_queue_and_consumes_the_next_one(provisioned, worker) -> None:
    with Caller(provisioned.topology, provisioned.url) as caller:
        assert caller.call("demo.add", 1, 2, timeout_s=20) == 3
    with Management(provisioned.address) as management:
        management.delete("queues", provisioned.address.vhost_name, "jobs.normal")
        until(
            lambda: worker.process.poll() is not None or worker.log.count("no queue") >= 2,
            timeout_s=30,
            what="the worker to miss its queue, twice",
        )
    assert worker.process.poll() is None, worker.log
    provision(provisioned.topology, provisioned.address)
    until(
        lambda: consumers_of(provisioned.address, "jobs.normal") == 1,
        timeout_s=30,
        what="the worker to come back",
    )
    with Caller(provisioned.topology, provisioned.url) as caller:
        assert caller.call("demo.add", 3, 4, timeout_s=20) == 7
    assert worker.stop() == 0, worker.log
