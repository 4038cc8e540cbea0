"""Plain Celery and what fails: poison, dead letters that never come, the message that ends it."""

from __future__ import annotations

import json

import pytest

from broker import case_file
from tests.faults.working import check
from tests.letters import inside
from tests.peers.plain import DEAD, LATE, QUEUE, QUORUM, Plain
from tests.provision import ready_in
from tests.waiting import until

pytestmark = pytest.mark.soak

NOTHING = json.dumps([[], {}, {}]).encode()
# A child that has gone is noticed every five seconds in the worst case.
LIMIT, ROUNDS = 2, 5


def test_poison_goes_round_on_a_classic_queue(plain: Plain) -> None:
    plain.worker("-c", "1", settings=LATE)
    (poison,) = plain.send("poison")
    begun = until(lambda: len(plain.begun(poison)) >= ROUNDS and plain.begun(poison), 60, "rounds")
    # Nobody counts them, and so nobody ends it.
    assert {line.attempt for line in begun} == {1}


def test_poison_on_a_quorum_queue_is_gone_without_a_trace(plain: Plain) -> None:
    # 20 where nobody says otherwise, which takes longer and ends in the same way.
    plain.policy(delivery_limit=LIMIT)
    plain.worker("-c", "1", settings={**QUORUM, **LATE})
    (poison,) = plain.send("poison", settings=QUORUM)
    until(lambda: len(plain.begun(poison)) == LIMIT + 1, 60, "the last attempt")
    until(plain.is_empty, 30, "RabbitMQ to have dropped it")
    with pytest.raises(AssertionError, match="neither done nor waiting nor dead: poison"):
        check(plain.ledger())


def test_most_kinds_of_failure_never_reach_the_dead_letter_queue(plain: Plain) -> None:
    plain.declare(DEAD, queue_type="quorum", delivery_limit=-1)
    plain.declare(QUEUE, queue_type="quorum")
    plain.policy(dead_letter_exchange="", dead_letter_routing_key=DEAD, delivery_limit=2)
    plain.put(NOTHING, id="expired", expiration="1")
    until(lambda: ready_in(plain.address, DEAD) == 1, 20, "what has expired")
    plain.worker("-c", "1", settings={**QUORUM, **LATE})
    arriving = ["expired"]
    for name in ("rejects", "nobodys", "poison"):
        arriving += plain.send(name, settings=QUORUM)
    missing = ["undecodable", "unknown-type"]
    for name in ("fails", "tries", "endless"):
        missing += plain.send(name, settings=QUORUM)
    plain.put(b"{", id="undecodable")
    # Of another program, which knows nothing of tasks.
    plain.put(NOTHING, id="unknown-type", task=None, content_type="application/x-unknown")
    until(lambda: ready_in(plain.address, DEAD) == len(arriving), 40, "what does arrive")
    until(plain.is_empty, 40, "all to be over")
    ledger = plain.ledger(dead=True)
    assert sorted(ledger.dead) == sorted(arriving)
    for id in missing:
        lost = f"neither done nor waiting nor dead: {id}"
        assert any(lost in each for each in ledger.problems()), ledger.problems()
    # And what arrives does not say why.
    letters = inside(plain.address, DEAD)
    cases = [case_file.of(each.headers) for each in letters]
    assert [case.error for case in cases if case is not None] == [""] * len(arriving)
    assert not [each for each in letters if "no such thing" in str(each.headers)]


def test_a_body_of_another_shape_ends_the_worker(plain: Plain) -> None:
    daemon = plain.worker("-c", "1")
    plain.put(b"[1]", id="of another shape")
    until(lambda: daemon.process.poll() is not None, 60, "its end")
    assert daemon.process.returncode == 1, daemon.log
