"""Each publish ends by its own deadline, whatever RabbitMQ does, and the process goes on."""

from __future__ import annotations

import time

import pytest

from broker.errors import OutcomeUnknown
from broker.receipt import Receipt, Routed
from producers.publisher import Publisher
from tests.faults.conftest import Ground
from tests.faults.ledger import emptied
from tests.faults.troubles import Trouble, alarm, death, silence
from tests.waiting import until

GRACE_S = 0.5
TIMES = 20
CLOSE_S = 2.0


class Timed:
    """A publish, and how long it took until it was done."""

    def __init__(self, publisher: Publisher, id: str, deadline_s: float) -> None:
        self.seconds: float | None = None
        self._deadline_s = deadline_s
        self._started = time.monotonic()
        self.receipt: Receipt = publisher.publish("normal", id, id=id, timeout_s=deadline_s)
        self.receipt.add_done_callback(self._note)

    def _note(self, receipt: Receipt) -> None:
        self.seconds = time.monotonic() - self._started

    def check(self) -> None:
        """See that it ended as unknown, neither early nor late."""
        assert isinstance(self.receipt.outcome, OutcomeUnknown), self.receipt.outcome
        assert self.seconds is not None
        assert self._deadline_s <= self.seconds <= self._deadline_s + GRACE_S


TROUBLES = pytest.mark.parametrize("trouble", [alarm, silence, death])


@TROUBLES
def test_forty_publishes_end_by_their_deadline(ground: Ground, trouble: Trouble) -> None:
    publish_into(ground, trouble, deadline_s=0.25)


@pytest.mark.soak
@TROUBLES
def test_forty_publishes_end_by_a_deadline_of_seconds(ground: Ground, trouble: Trouble) -> None:
    publish_into(ground, trouble, deadline_s=2.0)


def publish_into(ground: Ground, trouble: Trouble, *, deadline_s: float) -> None:
    """Publish at once and one by one while RabbitMQ takes nothing, close another, and go on."""
    leaving = Publisher(ground.topology, ground.address.url)
    with Publisher(ground.topology, ground.address.url) as publisher:
        for each in (leaving, publisher):
            each.publish("normal", "before", id="before").wait()
        with trouble(ground):
            left = leaving.publish("normal", "left", id="left", timeout_s=60)
            started = time.monotonic()
            leaving.close(timeout_s=deadline_s)
            assert time.monotonic() - started <= deadline_s + CLOSE_S
            assert isinstance(left.outcome, OutcomeUnknown)

            # One that was never connected before.
            with Publisher(ground.topology, ground.address.url) as late:
                never = Timed(late, "never", deadline_s)
                with pytest.raises(OutcomeUnknown):
                    never.receipt.wait()
                started = time.monotonic()
            assert time.monotonic() - started <= CLOSE_S

            at_once = [Timed(publisher, f"at-once-{at}", deadline_s) for at in range(TIMES)]
            until(lambda: at_once[-1].seconds, timeout_s=5, what="the last receipt")
            if trouble is alarm:
                # RabbitMQ's own words, not py-amqp's.
                assert publisher.blocked == "low on memory"
                assert "low on memory" in str(at_once[-1].receipt.outcome)
            one_by_one = []
            for at in range(TIMES):
                one_by_one.append(Timed(publisher, f"one-{at}", deadline_s))
                with pytest.raises(OutcomeUnknown):
                    one_by_one[-1].receipt.wait()
        # The same publisher goes on by itself.
        after = publisher.publish("normal", "after", id="after", timeout_s=20)
        assert isinstance(after.wait(), Routed)
        assert publisher.blocked is None
    every = [never, *at_once, *one_by_one]
    for timed in every:
        timed.check()
    found = set(emptied(ground.address, "jobs.normal"))
    receipts = [left, *(timed.receipt for timed in every)]
    sent = {receipt.message_id for receipt in receipts if receipt.sent}
    assert {"before", "after"} <= found <= {"before", "after"} | sent


def test_a_connection_that_was_closed_while_idle_loses_no_message(ground: Ground) -> None:
    with Publisher(ground.topology, ground.address.url) as publisher:
        publisher.publish("normal", "before", id="before").wait()
        ground.wait_connected()
        before = ground.connections()
        ground.close_connections()
        # At once, while the publisher may not have noticed; and when it certainly has.
        publisher.publish("normal", "at-once", id="at-once").wait()
        until(lambda: ground.connections() - before, timeout_s=10, what="a new connection")
        publisher.publish("normal", "later", id="later").wait()
    found = emptied(ground.address, "jobs.normal")
    assert set(found) == {"before", "at-once", "later"}
