"""A long-lived caller's queue: what survives a lost connection, and what is left behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from broker.body import Body
from broker.errors import AccessRefused, CallTimeout, OutcomeUnknown
from broker.management import Management
from broker.reply_queue import EXPIRES_MS
from producers.caller import Call, Caller
from producers.calls.mapping import AHEAD
from producers.calls.under_way import SPARE_DEADLINES
from tests.integration.answering import cut, echo, named, reply_queues, success
from tests.waiting import until

OUTSTANDING = 200


@pytest.fixture
def management(provisioned: Any) -> Iterator[Management]:
    with Management(provisioned.address) as found:
        yield found


def submitted(caller: Caller, count: int, *, timeout_s: float = 60) -> list[Call]:
    """Make so many calls; return them when RabbitMQ has all of them."""
    calls = [caller.submit("demo.echo", number, timeout_s=timeout_s) for number in range(count)]
    for call in calls:
        assert call.receipt is not None
        call.receipt.wait()
    return calls


def test_the_queue_is_declared_as_it_should_be_and_deleted_at_the_end(
    provisioned, management, consumer
) -> None:
    consumer(echo)
    with Caller(provisioned.topology, provisioned.url) as caller:
        assert caller.call("demo.echo", 1, timeout_s=20) == 1
        assert reply_queues(management) == [caller.reply_to]
        queue = management.get("queues", provisioned.address.vhost_name, caller.reply_to)
    assert (queue["type"], queue["durable"], queue["exclusive"]) == ("classic", True, False)
    assert queue["arguments"]["x-expires"] == EXPIRES_MS
    assert queue["arguments"]["x-single-active-consumer"] is True
    until(lambda: not reply_queues(management), timeout_s=10, what="the queue to be deleted")


def test_one_shot_declares_nothing(provisioned, management, consumer) -> None:
    consumer(echo)
    with Caller(provisioned.topology, provisioned.url, one_shot=True) as caller:
        assert caller.call("demo.echo", 1, timeout_s=20) == 1
        assert reply_queues(management) == []


def test_after_a_lost_connection_each_call_gets_its_own_reply(
    provisioned, management, consumer
) -> None:
    server = consumer(echo)
    server.holding = True
    with Caller(provisioned.topology, provisioned.url) as caller:
        calls = submitted(caller, OUTSTANDING)
        until(lambda: len(server.requests) == OUTSTANDING, timeout_s=20, what="all requests")
        cut(management, but={server.name})
        # Some come before there is a connection again, some after.
        server.holding = False
        assert [call.result() for call in calls] == list(range(OUTSTANDING))
        assert caller.unknown_replies == 0
        assert caller.call("demo.echo", "next", timeout_s=20) == "next"
        assert reply_queues(management) == [caller.reply_to]


def test_a_consumer_that_rabbitmq_takes_for_alive_holds_up_only_the_calls_before(
    provisioned, management, consumer
) -> None:
    server = consumer(echo)
    server.holding = True
    with Caller(provisioned.topology, provisioned.url) as caller:
        calls = submitted(caller, 20)
        until(lambda: len(server.requests) == 20, timeout_s=20, what="all requests")
        former = caller.reply_to
        # Stands for the caller's own connection, half open: it gets the replies, and is silent.
        other = named(provisioned.address, "half open")
        other.default_channel.basic_consume(former, callback=lambda message: None)
        cut(management, but={server.name, "half open"})
        until(lambda: caller.reply_to != former, timeout_s=20, what="another queue")
        server.holding = False
        assert caller.call("demo.echo", "next", timeout_s=20) == "next"
        assert not any(call.done() for call in calls)
        other.release()
        assert [call.result() for call in calls] == list(range(20))
        assert sorted(reply_queues(management)) == sorted([former, caller.reply_to])
    until(lambda: not reply_queues(management), timeout_s=10, what="the queues to be deleted")


def test_where_the_queue_is_gone_what_was_sent_is_unknown_at_once_and_the_next_call_works(
    provisioned, management, consumer
) -> None:
    server = consumer(echo)
    server.holding = True
    with Caller(provisioned.topology, provisioned.url) as caller:
        calls = submitted(caller, 20)
        # RabbitMQ tells the consumer, which connects anew.
        management.delete("queues", provisioned.address.vhost_name, caller.reply_to)
        for call in calls:
            with pytest.raises(OutcomeUnknown, match="gone") as caught:
                call.result(timeout=20)
            assert caught.value.sent
        server.holding = False
        assert caller.call("demo.echo", "next", timeout_s=20) == "next"
        # They were answered all the same, into the queue of that name.
        until(lambda: caller.unknown_replies == 20, timeout_s=20, what="replies to nobody")


def test_a_one_shot_caller_learns_at_once_that_its_reply_is_lost(
    provisioned, management, consumer
) -> None:
    server = consumer(echo)
    server.holding = True
    with Caller(provisioned.topology, provisioned.url, one_shot=True) as caller:
        [lost] = submitted(caller, 1)
        cut(management, but={server.name})
        with pytest.raises(OutcomeUnknown) as caught:
            lost.result(timeout=20)
        assert caught.value.sent
        server.holding = False
        assert caller.call("demo.echo", 2, timeout_s=20) == 2


def test_a_user_who_may_not_have_a_queue_is_told_what_to_do(
    rabbitmq, provisioned, management, consumer, vhost: str
) -> None:
    consumer(echo)
    user = f"call-{vhost}"
    management.put("users", user, body={"password": "secret", "tags": ""})
    rights = {"configure": "^$", "write": "^jobs$", "read": "^$"}
    management.put("permissions", vhost, user, body=rights)
    try:
        url = provisioned.url.replace(
            provisioned.url.split("//")[1].split("@")[0], f"{user}:secret"
        )
        with Caller(provisioned.topology, url) as caller:
            with pytest.raises(AccessRefused, match=r"role `caller`.*one_shot=True") as caught:
                caller.connect(timeout_s=20)
            assert "secret" not in str(caught.value)
            with pytest.raises(OutcomeUnknown, match="role `caller`") as refused:
                caller.call("demo.echo", 1, timeout_s=20)
            assert refused.value.sent is False
        with Caller(provisioned.topology, url, one_shot=True) as caller:
            assert caller.call("demo.echo", 1, timeout_s=20) == 1
        # What the role comes to.
        own = r"^(rabbitry\.reply\..*)$"
        body = {**rights, "configure": own, "read": own}
        management.put("permissions", vhost, user, body=body)
        with Caller(provisioned.topology, url) as caller:
            assert caller.call("demo.echo", 1, timeout_s=20) == 1
    finally:
        management.delete("users", user)


def test_a_forked_process_has_a_queue_of_its_own_and_none_of_its_parents_calls(
    provisioned, consumer
) -> None:
    server = consumer(echo)
    server.holding = True
    with Caller(provisioned.topology, provisioned.url) as caller:
        calls = submitted(caller, 10)
        queue = caller.reply_to
        child = os.fork()
        if child == 0:
            # Nothing of pytest's may run in here.
            status = 1
            try:
                status = _in_child(caller, calls[0], queue)
            finally:
                os._exit(status)
        until(lambda: len(server.requests) == 11, timeout_s=20, what="the child's request")
        server.holding = False
        assert [call.result() for call in calls] == list(range(10))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert caller.call("demo.echo", "after", timeout_s=20) == "after"
        assert (caller.reply_to, caller.unknown_replies) == (queue, 0)


def _in_child(caller: Caller, theirs: Call, queue: str) -> int:
    try:
        theirs.result(timeout=20)
    except OutcomeUnknown:
        pass
    else:
        return 2
    if caller.call("demo.echo", "child", timeout_s=20) != "child":
        return 3
    if caller.reply_to == queue or caller.unknown_replies:
        return 4
    caller.close()
    return 0


def test_an_unknown_correlation_id_is_counted_and_dropped(provisioned, consumer) -> None:
    server = consumer(echo)
    with Caller(provisioned.topology, provisioned.url) as caller:
        assert caller.call("demo.echo", 1, timeout_s=20) == 1
        server.holding = True
        [call] = submitted(caller, 1)
        until(lambda: len(server.requests) == 2, timeout_s=20, what="the request")
        for correlation_id in ("somebody-else's", "", "x" * 255):
            server.send(server.requests[0], success("not yours"), correlation_id=correlation_id)
        until(lambda: caller.unknown_replies == 3, timeout_s=20, what="the replies")
        assert not call.done()
        server.holding = False
        assert call.result() == 0


def test_a_reply_that_comes_too_late_or_twice_is_dropped(provisioned, consumer) -> None:
    server = consumer(lambda args: [success(args[0]), success("again")])
    server.holding = True
    with Caller(provisioned.topology, provisioned.url) as caller:
        with pytest.raises(CallTimeout):
            caller.call("demo.echo", "late", timeout_s=0.3)
        server.holding = False
        assert caller.call("demo.echo", "in time", timeout_s=20) == "in time"
        until(lambda: caller.unknown_replies == 3, timeout_s=20, what="the others")


@pytest.mark.parametrize(
    "properties",
    [
        {"content_type": b"\xff\xfe"},
        {"correlation_id": b"\xff\xfe"},
        {"content_encoding": "no-such-encoding"},
        {"application_headers": {"rabbitry-started": "yesterday", "rabbitry-worker": 17}},
    ],
    ids=["type", "correlation id", "encoding", "headers"],
)
def test_properties_that_make_no_sense_harm_no_other_call(
    provisioned, consumer, properties: dict[str, Any]
) -> None:
    server = consumer(echo)
    with Caller(provisioned.topology, provisioned.url) as caller:
        assert caller.call("demo.echo", 1, timeout_s=20) == 1
        server.holding = True
        odd, good = submitted(caller, 2)
        until(lambda: len(server.requests) == 3, timeout_s=20, what="the requests")
        server.send(server.requests[1], Body(b"{}", "application/json", "utf-8"), **properties)
        server.holding = False
        assert good.result(timeout=20) == 1
        # By the odd one, or by the one that came behind it.
        odd.exception(timeout=20)


def test_memory_of_calls_that_have_ended_is_given_back(provisioned, consumer) -> None:
    consumer(echo)
    with Caller(provisioned.topology, provisioned.url) as caller:
        # Long timeouts: their deadlines must not be kept until then.
        for _ in caller.map("demo.echo", range(4000), timeout_s=3600):
            pass
        under_way = caller._line._calls
        assert len(under_way) == 0
        assert len(under_way._deadlines) <= 2 * AHEAD + SPARE_DEADLINES + 1


def test_a_timeout_is_kept_within_50_ms_while_many_calls_wait(provisioned, consumer) -> None:
    server = consumer(echo)
    server.holding = True
    late: list[float] = []
    with Caller(provisioned.topology, provisioned.url) as caller:
        caller.connect()
        calls = submitted(caller, 300, timeout_s=30)
        for timeout_s in (0.5, 0.3, 0.4, 0.6, 0.2):
            short = caller.submit("demo.echo", "short", timeout_s=timeout_s)
            short.add_done_callback(
                lambda call: late.append(time.monotonic() - call.started - call.timeout_s)
            )
        until(lambda: len(late) == 5, timeout_s=20, what="the short ones to end")
        server.holding = False
        assert [call.result() for call in calls] == list(range(300))
    # The machine may have had something else to do for once.
    assert sorted(late)[0] > -0.001
    assert sorted(late)[2] < 0.05, late
