"""Calls while RabbitMQ itself is killed, or says nothing any more."""

from __future__ import annotations

import time

from broker.errors import CallTimeout, OutcomeUnknown
from producers.caller import Call, Caller
from tests.faults.conftest import Ground
from tests.integration.answering import Consumer, echo
from tests.waiting import until

CALLS = 50


def test_calls_that_rabbitmq_had_when_it_was_killed_are_answered_when_it_is_back(
    ground: Ground,
) -> None:
    with Caller(ground.topology, ground.address.url) as caller:
        calls = [caller.submit("normal", number, timeout_s=100) for number in range(CALLS)]
        for call in calls:
            assert call.receipt is not None
            call.receipt.wait()
        queue = caller.reply_to
        ground.hurt.kill()
        ground.hurt.start()
        server = Consumer(ground.address, echo)
        try:
            assert [call.result() for call in calls] == list(range(CALLS))
            assert caller.call("normal", "next", timeout_s=60) == "next"
        finally:
            server.close()
        assert (caller.reply_to, caller.unknown_replies) == (queue, 0)


def test_a_call_ends_at_its_timeout_whatever_rabbitmq_does(ground: Ground) -> None:
    late: list[float] = []

    def note(call: Call) -> None:
        late.append(time.monotonic() - call.started - call.timeout_s)

    with Caller(ground.topology, ground.address.url) as caller:
        caller.connect()
        waiting = [caller.submit("normal", timeout_s=1 + n / 10) for n in range(5)]
        ground.hurt.pause()
        try:
            # Some were written, some were not.
            waiting += [caller.submit("normal", timeout_s=1 + n / 10) for n in range(5)]
            for call in waiting:
                call.add_done_callback(note)
            until(lambda: len(late) == 10, timeout_s=20, what="all to end")
        finally:
            ground.hurt.go_on()
        for call in waiting:
            assert isinstance(call.exception(), (CallTimeout, OutcomeUnknown))
        server = Consumer(ground.address, lambda args: echo(args) if args else None)
        try:
            assert caller.call("normal", "next", timeout_s=60) == "next"
        finally:
            server.close()
    # The machine may have had something else to do for once.
    assert sorted(late)[0] > -0.001
    assert sorted(late)[5] < 0.05, late
