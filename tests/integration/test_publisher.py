"""Each publish ends in exactly one way, and errors belong to the message that caused them."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from broker.body import decode
from broker.confirmed import ConfirmedChannel
from broker.connection import Address, connect
from broker.contracts import Contract
from broker.errors import (
    AccessRefused,
    InvalidArguments,
    InvalidMessage,
    MessageTooLarge,
    OutcomeUnknown,
    Rejected,
    UnknownJob,
    Unreachable,
    Unroutable,
    VirtualHostMissing,
)
from broker.management import Management
from broker.message import job_message
from broker.receipt import Receipt, Routed
from broker.topology import Topology
from producers.publisher import Job, Publisher
from tests.provision import ready_in
from tests.waiting import until


def take(address: Address, queue: str):
    """Take one message from a queue, raw."""
    connection = connect(address)
    try:
        message = connection.default_channel.basic_get(queue, no_ack=True)
        return message
    finally:
        connection.release()


def ids_in(address: Address, queue: str) -> list[str]:
    """Take all messages of a queue; return their ids."""
    connection = connect(address)
    try:
        channel = connection.default_channel
        taken = iter(lambda: channel.basic_get(queue, no_ack=True), None)
        return [message.properties["message_id"] for message in taken]
    finally:
        connection.release()


def test_a_routed_job_is_in_its_queue_as_the_reference_says(provisioned) -> None:
    series = np.arange(5.0)
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        receipt = publisher.publish(
            "demo.echo", series, id="one", priority=9, headers={"tenant": "a"}
        )
        routed = receipt.wait()
    assert routed == Routed("one", "jobs", "normal.demo.echo")
    assert receipt.done
    assert receipt.outcome is routed
    assert not receipt.redelivered
    message = take(provisioned.address, "jobs.normal")
    headers = message.properties["application_headers"]
    assert message.properties["delivery_mode"] == 2
    assert message.properties["priority"] == 9
    assert message.properties["message_id"] == "one"
    assert headers["task"] == "demo.echo"
    assert headers["tenant"] == "a"
    assert abs(headers["rabbitry-published"] / 1000 - time.time()) < 60
    args, kwargs, _ = decode(message.body, message.properties["content_type"])
    assert (args[0] == series).all()
    assert kwargs == {}


def test_a_job_that_reaches_no_queue_is_unroutable(provisioned) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        receipts = [publisher.publish(name) for name in ("demo.echo", "test.nowhere", "demo.echo")]
        receipts[0].wait()
        with pytest.raises(Unroutable, match="nowhere") as caught:
            receipts[1].wait()
        receipts[2].wait()
    assert (caught.value.reply_code, caught.value.reply_text) == (312, "NO_ROUTE")
    assert caught.value.message_id == receipts[1].message_id
    assert ready_in(provisioned.address, "jobs.normal") == 2


def test_a_full_queue_rejects(provisioned) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        outcomes = Counter(
            type(receipt.outcome).__name__
            for receipt in publisher.publish_many(("test.tiny",) for _ in range(50))
        )
        with pytest.raises(Rejected, match="full"):
            publisher.publish("test.tiny").wait()
    # RabbitMQ lets in what was under way when the limit was reached.
    assert outcomes["Routed"] == ready_in(provisioned.address, "jobs.tiny")
    assert outcomes["Routed"] >= 3
    assert outcomes["Routed"] + outcomes["Rejected"] == 50


def test_a_rejection_names_the_queue_that_is_probably_full_and_by_which_policy(provisioned) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        for receipt in publisher.publish_many(("test.tiny",) for _ in range(50)):
            assert receipt.done
        with pytest.raises(Rejected, match=r"'jobs\.tiny' \(max-length 3 by policy "):
            publisher.publish("test.tiny").wait()


def test_all_messages_to_a_missing_exchange_end_and_all_others_arrive(provisioned) -> None:
    spec = provisioned.topology.jobs["demo.echo"].model_copy(update={"exchange": "gone"})
    jobs = {**provisioned.topology.jobs, "test.gone": spec}
    topology: Topology = provisioned.topology.model_copy(update={"jobs": jobs})
    names = ["demo.echo", "test.gone"] * 300
    with Publisher(topology, provisioned.url) as publisher:
        receipts = list(publisher.publish_many((name,) for name in names))
    for name, receipt in zip(names, receipts, strict=True):
        assert isinstance(receipt.outcome, Routed if name == "demo.echo" else Unroutable), name
    found = Counter(ids_in(provisioned.address, "jobs.normal"))
    assert found.keys() == {receipt.message_id for receipt in receipts[::2]}
    # Twice, or more often where the channel was closed again, is only what says so.
    again = {receipt.message_id for receipt in receipts if receipt.redelivered}
    assert {id for id, times in found.items() if times > 1} <= again


def test_each_return_ends_its_own_message_also_where_two_have_the_same_id(provisioned) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        jobs = [Job(name, id="same") for name in ("demo.echo", "test.nowhere") * 20]
        outcomes = [type(receipt.outcome) for receipt in publisher.publish_many(jobs)]
    assert outcomes == [Routed, Unroutable] * 20


def test_a_missing_exchange_ends_its_own_message_and_no_other(provisioned, rabbitmq, vhost) -> None:
    spec = provisioned.topology.jobs["demo.echo"].model_copy(update={"exchange": "gone"})
    jobs = {**provisioned.topology.jobs, "test.gone": spec}
    topology: Topology = provisioned.topology.model_copy(update={"jobs": jobs})
    names = ["demo.echo"] * 20 + ["test.gone"] + ["demo.echo"] * 20
    with Publisher(topology, provisioned.url) as publisher:
        receipts = list(publisher.publish_many((name,) for name in names))
    outcomes = [receipt.outcome for receipt in receipts]
    assert isinstance(outcomes[20], Unroutable)
    assert outcomes[20].reply_code == 404
    assert all(isinstance(outcome, Routed) for i, outcome in enumerate(outcomes) if i != 20)
    resent = sum(receipt.redelivered for receipt in receipts)
    assert 40 <= ready_in(provisioned.address, "jobs.normal") <= 40 + resent


def test_a_message_too_large_is_refused_before_anything_is_sent(provisioned) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        before = publisher.publish("demo.echo", 1)
        with pytest.raises(MessageTooLarge, match="16777216") as caught:
            publisher.publish("demo.echo", np.zeros(17 * 2**20, np.uint8))
        publisher.publish("demo.echo", 2).wait()
        before.wait()
    assert caught.value.size_bytes > 17 * 2**20
    assert caught.value.limit_bytes == 16 * 2**20


def test_rabbitmqs_own_refusal_of_a_large_message_is_its_own_and_is_learnt(provisioned) -> None:
    with Publisher(provisioned.topology, provisioned.url, max_message_bytes=2**30) as publisher:
        jobs = [("demo.echo", (1,)), ("demo.echo", (b"x" * 17 * 2**20,)), ("demo.echo", (2,))]
        before, large, after = publisher.publish_many(jobs)
        assert isinstance(before.outcome, Routed)
        assert isinstance(after.outcome, Routed)
        assert isinstance(large.outcome, Rejected)
        assert isinstance(large.outcome.__cause__, MessageTooLarge)
        with pytest.raises(MessageTooLarge, match="16777216"):
            publisher.publish("demo.echo", b"x" * 17 * 2**20)


def test_a_job_among_many_that_cannot_be_sent_has_its_own_error(provisioned) -> None:
    jobs = [Job("demo.echo"), Job("no.such"), Job("demo.echo", priority=99), Job("demo.echo")]
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        receipts = list(publisher.publish_many(jobs))
        with pytest.raises(UnknownJob):
            receipts[1].wait()
    outcomes = [type(receipt.outcome) for receipt in receipts]
    assert outcomes == [Routed, UnknownJob, InvalidArguments, Routed]


@pytest.mark.parametrize("compression", ["gzip", "bzip2"])
def test_a_compressed_job_says_so_as_kombu_does(provisioned, compression: str) -> None:
    from kombu.compression import decompress

    with Publisher(provisioned.topology, provisioned.url) as publisher:
        [receipt] = publisher.publish_many(
            [Job("demo.echo", ("x" * 999,), compression=compression)]
        )
        receipt.wait()
    message = take(provisioned.address, "jobs.normal")
    assert len(message.body) < 300
    kind = message.properties["application_headers"]["compression"]
    args, _, _ = decode(decompress(message.body, kind), message.properties["content_type"])
    assert args == ["x" * 999]


def test_nothing_is_sent_for_input_that_is_refused(provisioned) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        with pytest.raises(UnknownJob, match=r"did you mean 'demo\.echo'"):
            publisher.publish("demo.ecko")
        with pytest.raises(InvalidMessage, match=r"demo\.echo"):
            publisher.publish("demo.echo", object())
        with pytest.raises(InvalidMessage, match="header"):
            publisher.publish("demo.echo", headers={"when": object()})
        with pytest.raises(InvalidArguments, match="priority"):
            publisher.publish("demo.echo", priority=99)
        publisher.publish("demo.echo").wait()
    assert ready_in(provisioned.address, "jobs.normal") == 1


def test_many_are_published_in_order_with_their_receipts(provisioned) -> None:
    with Publisher(provisioned.topology, provisioned.url, window=50) as publisher:
        jobs = (Job("demo.echo", (i,), id=str(i)) for i in range(2000))
        ids = [receipt.wait().message_id for receipt in publisher.publish_many(jobs)]
    assert ids == [str(i) for i in range(2000)]
    assert ready_in(provisioned.address, "jobs.normal") == 2000


def test_threads_share_a_publisher(provisioned) -> None:
    routed: list[str] = []

    def work(number: int) -> None:
        for index in range(100):
            receipt = publisher.publish("demo.echo", index, id=f"{number}-{index}")
            routed.append(receipt.wait().message_id)

    with Publisher(provisioned.topology, provisioned.url) as publisher:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(set(routed)) == 800
    assert ready_in(provisioned.address, "jobs.normal") == 800


def test_a_publisher_goes_on_after_its_connection_was_closed(provisioned) -> None:
    vhost = provisioned.address.vhost_name
    with (
        Publisher(provisioned.topology, provisioned.url) as publisher,
        Management(provisioned.address) as management,
    ):
        publisher.publish("demo.echo", 0).wait()

        def connections() -> list[str]:
            listed = management.get("connections")
            return [each["name"] for each in listed if each.get("vhost") == vhost]

        for name in until(connections, timeout_s=20, what="the connection to be listed"):
            management.delete("connections", name)
        # Idle when it was closed: the next message must not be the one that finds out.
        publisher.publish("demo.echo", 1).wait()
    assert ready_in(provisioned.address, "jobs.normal") == 2


def test_without_rabbitmq_a_publish_ends_at_its_deadline_and_was_never_sent(provisioned) -> None:
    with Publisher(provisioned.topology, "amqp://guest:guest@127.0.0.1:1/") as publisher:
        with pytest.raises(Unreachable, match="Connection refused"):
            publisher.connect()
        started = time.monotonic()
        with pytest.raises(OutcomeUnknown, match="Connection refused") as caught:
            publisher.publish("demo.echo", timeout_s=0.5).wait()
        assert time.monotonic() - started < 1.0
        assert caught.value.sent is False


def test_a_peer_that_accepts_and_says_nothing_does_not_hold_a_publish(provisioned) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"amqp://guest:guest@127.0.0.1:{silent.getsockname()[1]}/"
        publisher = Publisher(provisioned.topology, url)
        started = time.monotonic()
        with pytest.raises(OutcomeUnknown) as caught:
            publisher.publish("demo.echo", timeout_s=0.5).wait()
        assert caught.value.sent is False
        publisher.close(timeout_s=0)
        assert time.monotonic() - started < 1.5


def test_a_wrong_password_is_said_at_once(provisioned) -> None:
    wrong = provisioned.url.replace(f":{provisioned.address.password}@", ":wrong@", 1)
    with Publisher(provisioned.topology, wrong) as publisher:
        with pytest.raises(AccessRefused, match="password"):
            publisher.connect()
        started = time.monotonic()
        with pytest.raises(OutcomeUnknown):
            publisher.publish("demo.echo", timeout_s=30).wait()
        assert time.monotonic() - started < 10


def test_a_missing_virtual_host_is_said(provisioned) -> None:
    address = provisioned.address.with_vhost("there is no such place")
    with (
        Publisher(provisioned.topology, address.url) as publisher,
        pytest.raises(VirtualHostMissing, match="topology apply"),
    ):
        publisher.connect()


def test_a_closed_publisher_says_so(provisioned) -> None:
    publisher = Publisher(provisioned.topology, provisioned.url)
    publisher.publish("demo.echo").wait()
    publisher.close()
    with pytest.raises(OutcomeUnknown, match="closed") as caught:
        publisher.publish("demo.echo").wait()
    assert caught.value.sent is False


def test_a_child_has_a_connection_of_its_own_and_leaves_the_parents_alone(provisioned) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("demo.echo", id="before").wait()
        reader, writer = os.pipe()
        open_one = publisher.publish("demo.echo", id="open")
        child = os.fork()
        if child == 0:
            said = "nothing"
            try:
                with publisher:
                    publisher.publish("demo.echo", id="child", timeout_s=10).wait(10)
                said = "routed" if open_one.done or not _routed(open_one) else "stolen"
            except BaseException as exc:  # noqa: BLE001  # the parent's test says what it was
                said = repr(exc)
            finally:
                os.write(writer, said.encode())
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as answer:
            assert answer.read() == "routed"
        os.waitpid(child, 0)
        open_one.wait()
        after = publisher.publish("demo.echo", id="after")
        after.wait()
        assert not after.redelivered
    assert ready_in(provisioned.address, "jobs.normal") == 4


def _routed(receipt: Receipt) -> bool:
    try:
        receipt.wait(1)
    except OutcomeUnknown:
        return False
    return True


class Counting:
    """Notes what an observer is told."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.latencies_s: list[float] = []

    def handed_over(self) -> None:
        self.counts["handed over"] += 1

    def ended(self, outcome: str, latencies_s: Sequence[float]) -> None:
        self.counts[outcome] += len(latencies_s)
        self.latencies_s += latencies_s

    def blocked(self) -> None:
        self.counts["blocked"] += 1

    def unblocked(self, seconds: float) -> None:
        self.counts["unblocked"] += 1

    def reconnected(self) -> None:
        self.counts["reconnected"] += 1


def test_an_observer_counts_each_message_once_and_the_reconnection(provisioned) -> None:
    counting = Counting()
    channel = ConfirmedChannel(provisioned.address, observer=counting)
    message = job_message(Contract("demo.echo", "jobs", ""), Job("demo.echo"), published_ms=0)
    keys = ["normal.demo.echo", "nowhere"] * 10
    for key in keys:
        channel.publish(message, exchange="jobs", routing_key=key)
    assert channel.flush(20)
    # As a network does it: both ends learn that the connection is gone.
    channel._outlet.wire.sock.shutdown(socket.SHUT_RDWR)
    until(lambda: counting.counts["reconnected"], timeout_s=20, what="the reconnection")
    channel.publish(message, exchange="jobs", routing_key="normal.demo.echo").wait()
    channel.close()
    ended = {"routed": 11, "unroutable": 10}
    assert counting.counts == {"handed over": 21, **ended, "reconnected": 1}
    assert all(0 < latency_s < 20 for latency_s in counting.latencies_s)


def test_a_callback_learns_the_outcome(provisioned) -> None:
    seen = threading.Event()
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        receipt = publisher.publish("demo.echo")
        receipt.add_done_callback(lambda receipt: seen.set())
        assert seen.wait(10)
        late = threading.Event()
        receipt.add_done_callback(lambda receipt: late.set())
        assert late.is_set()
