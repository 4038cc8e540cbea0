"""A network that is cut and comes back: the same process consumes again, within five seconds."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator

import pytest

from broker.connection import HEARTBEAT_S
from broker.management import Management
from tests.faults.network import Network, network
from tests.faults.working import DEAD, QUEUE, Field, check
from tests.provision import consumers_of, ready_in
from tests.waiting import until

BACK_S = 5.0
# What RabbitMQ proposes in the short version: it gives a silent worker up after twice as long.
QUICK_HEARTBEAT_S = 4
SLOTS = 2


@pytest.fixture
def wire(field: Field) -> Iterator[Network]:
    """A network between the worker and RabbitMQ."""
    with network(field.hurt) as found:
        yield found


def wait_until(moment: float) -> None:
    """Wait for a moment of the monotonic clock: how long a fault lasts."""
    until(lambda: time.monotonic() >= moment, moment - time.monotonic() + 10, "the fault to last")


def given_up(field: Field, names: set[str]) -> bool:
    """Say whether RabbitMQ itself has closed the connections that the worker had."""
    with Management(field.address) as management:
        found = management.get("connections", "username", field.address.user)
    return not names & {each["name"] for each in found}


def connections(field: Field) -> set[str]:
    """Return the names of the connections to the field's virtual host."""
    with Management(field.address) as management:
        found = management.get("connections", "username", field.address.user)
    vhost = field.address.vhost_name
    return {each["name"] for each in found if each["vhost"] == vhost}


def cut_again_and_again(
    field: Field, wire: Network, worker: str, lengths_s: list[float | None], heartbeat_s: int
) -> None:
    """Cut the network; see who consumes, and after how long; None lasts until RabbitMQ gives up."""
    daemon = field.start(worker, prefix=wire.prefix, address=wire.address(field.address))
    field.publish(4, seconds=0.01)
    field.wait_all_done()
    back, cut = [], 0
    for number, length_s in enumerate(lengths_s):
        before = connections(field)
        assert before
        wire.cut()
        cut += 1
        began = time.monotonic()
        # Under way when it is cut, and waiting when it is back.
        field.publish(6, seconds=0.01)
        # Their dead letters are published over a connection that is cut off, too.
        field.doomed |= set(field.publish(2, seconds="no number"))
        if length_s is None:
            until(lambda before=before: given_up(field, before), 4 * heartbeat_s + 10, "RabbitMQ")
        else:
            wait_until(began + length_s)
        lasted = time.monotonic() - began
        wire.restore()
        restored = time.time()

        def consumed() -> bool:
            return any(line.at > restored for line in field.lines())  # noqa: B023

        deadline = time.monotonic() + BACK_S
        while not consumed() and time.monotonic() < deadline + 30:
            field.publish(1, seconds=0.01)
        first = min((line.at for line in field.lines() if line.at > restored), default=0.0)
        back.append(first - restored)
        told = f"cut {number} of {lasted:.1f} s: consuming after {back[-1]:.2f} s"
        sys.stdout.write(f"{told}\n")
        assert daemon.process.poll() is None, daemon.log[-4000:]
        assert 0 < back[-1] <= BACK_S, f"{told}\n{daemon.log[-4000:]}"
        # What RabbitMQ still takes for delivered comes back when it gives the old connection up.
        field.wait_all_done(4 * heartbeat_s + 30)
        until(lambda: consumers_of(field.address, QUEUE) == 1, 4 * heartbeat_s + 30, "one consumer")
    until(lambda: ready_in(field.address, DEAD) >= len(field.doomed), 60, "the dead letters")
    assert len({line.parent for line in field.lines()}) == 1, "another process consumes"
    assert "RESOURCE_LOCKED" not in daemon.log
    assert daemon.stop() == 0
    # Over, and cut off before its acknowledgement arrived: no more than the slots of each cut.
    ledger = field.close()
    check(ledger, again=SLOTS * cut)
    assert ledger.dead.keys() == field.doomed
    sys.stdout.write(f"{wire.kind}: slowest return {max(back):.2f} s of {len(back)}\n")


def test_a_worker_outlives_cuts_and_consumes_at_once(field: Field, wire: Network) -> None:
    field.hurt.beat(QUICK_HEARTBEAT_S)
    # The last one until RabbitMQ has given the connection up, with a control queue as well.
    cut_again_and_again(field, wire, "controlled", [2.0, None], QUICK_HEARTBEAT_S)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("worker", ["processes", "controlled", "threads", "green"])
def test_a_worker_outlives_twenty_cuts(field: Field, wire: Network, worker: str) -> None:
    field.hurt.beat(60)
    lengths: list[float | None] = [0.5, 2.0, 4.5, 7.0, 9.0, 13.0, 21.0, None]
    twenty = list(itertools.islice(itertools.cycle(lengths), 20))
    cut_again_and_again(field, wire, worker, twenty, HEARTBEAT_S)
