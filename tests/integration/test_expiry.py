"""A job past its deadline dies on RabbitMQ where nothing delays it; else the worker sees to it."""

from __future__ import annotations

import pytest

from broker.connection import connect
from broker.errors import CallTimeout
from producers.caller import Caller
from producers.publisher import Publisher
from tests.provision import QUICK, provision, ready_in, topology_of
from tests.waiting import until

JOBS = """
  test.kept: {exchange: jobs, routing_key: kept, deadline: 200ms}
  test.retried: {exchange: jobs, routing_key: normal.retried, deadline: 200ms}
  test.dropped: {exchange: jobs, routing_key: tiny.dropped, deadline: 200ms}
"""
QUEUE = """
  jobs.kept:
    type: quorum
    bindings: [{exchange: jobs, routing_key: kept}]
    dead_letter: {exchange: jobs.dead}
    overflow: reject-publish
delays: {max: 1m}
"""


def test_a_call_that_nobody_takes_is_gone_where_rabbitmq_keeps_no_dead_letters(
    rabbitmq, vhost, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    topology, _ = topology_of(tmp_path, QUICK.replace("\njobs:\n", QUEUE + "\njobs:" + JOBS))
    address = rabbitmq.address(vhost)
    provision(topology, address)
    with Caller(topology, address.url) as caller:
        dropped = caller.submit("test.dropped", timeout_s=1.0)
        kept = caller.submit("test.kept", timeout_s=1.0)
        until(lambda: dropped.receipt.done and kept.receipt.done, 20, "the confirms")
        for call in (dropped, kept):
            with pytest.raises(CallTimeout):
                call.result()
        until(lambda: ready_in(address, "jobs.tiny") == 0, 20, "the end of the call")
    # A dead letter is only what somebody may still want: there its worker ends it.
    assert ready_in(address, "jobs.kept") == 1
    assert ready_in(address, "jobs.dead") == 0


def test_only_what_nothing_delays_has_a_time_to_live(
    rabbitmq, vhost, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    topology, _ = topology_of(tmp_path, QUICK.replace("\njobs:\n", QUEUE + "\njobs:" + JOBS))
    address = rabbitmq.address(vhost)
    provision(topology, address)
    with Publisher(topology, address.url) as publisher:
        for name in ("test.retried", "test.dropped"):
            publisher.publish(name).wait()
        publisher.publish("test.kept", id="dead").wait()
        publisher.publish("test.kept", id="later", delay_s=1).wait()
        until(lambda: ready_in(address, "jobs.dead") == 1, 20, "the dead letter")
        until(lambda: ready_in(address, "jobs.kept") == 1, 20, "the delayed job")
    connection = connect(address)
    try:
        channel = connection.default_channel
        (death,) = channel.basic_get("jobs.dead").properties["application_headers"]["x-death"]
        assert (death["reason"], death["queue"]) == ("expired", "jobs.kept")
        for queue in ("jobs.normal", "jobs.tiny", "jobs.kept"):
            message = channel.basic_get(queue)
            assert "expiration" not in message.properties
            assert "rabbitry-deadline" in message.properties["application_headers"]
    finally:
        connection.release()
