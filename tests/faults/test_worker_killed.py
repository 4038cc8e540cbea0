"""kill -9 of what runs jobs: nothing lost, nothing unexplained, neighbours uncounted."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.faults.working import DEAD, Field, Ledger, Line, changed, check
from tests.provision import ready_in
from tests.waiting import until

SLOTS = 2


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in text.split()]


def test_a_ledger_finds_what_does_not_add_up() -> None:
    def line(id: str, event: str = "done", *, redelivered: bool = False) -> Line:
        return Line(event, id, 1, 10, 1, redelivered, 0.0)

    once = [line("a", "began"), line("a")]
    assert not Ledger(frozenset("a"), tuple(once)).problems()
    assert Ledger(frozenset("ab"), tuple(once)).problems() == [
        "published, and neither done nor waiting nor dead: b"
    ]
    assert not Ledger(frozenset("ab"), tuple(once), deleted=frozenset("b")).problems()
    unexplained = Ledger(frozenset("a"), (*once, *once)).problems(again=1)
    assert unexplained == ["begun 2 times as if for the first: a"]
    explained = (*once, *(changed(each, redelivered=True) for each in once))
    assert not Ledger(frozenset("a"), explained).problems(again=1)
    (told,) = Ledger(frozenset("a"), explained).problems()
    assert "1 jobs over came once more" in told
    (stranger,) = Ledger(frozenset("a"), (*once, line("x"))).problems()
    assert "nobody published it: x" in stranger


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.soak)])
@pytest.mark.timeout(300)
def test_children_and_whole_workers_are_killed_under_load(field: Field, kills: int) -> None:
    daemon = field.start()
    for number in range(kills):
        published = set(field.publish(100, seconds=0.01))
        field.wait_done(lambda done, published=published: len(done & published) > 10)
        (*_, victim) = sorted(children_of(daemon.process.pid))
        os.kill(victim, signal.SIGKILL)
        until(
            lambda victim=victim: (
                victim not in (now := children_of(daemon.process.pid)) and len(now) >= SLOTS
            ),
            timeout_s=30,
            what=f"child {number} to be replaced",
        )
    field.publish(100, seconds=0.01)
    assert daemon.process.poll() is None, daemon.log
    os.killpg(daemon.process.pid, signal.SIGKILL)
    daemon.process.wait()
    second = field.start()
    field.wait_all_done()
    assert second.stop() == 0
    ledger = field.close()
    # Done, and killed before it was acknowledged.
    check(ledger, again=kills + SLOTS)
    # One of each killed child, and what the killed worker held; neighbours are not counted.
    assert len(ledger.counted) <= kills + SLOTS
    assert not ledger.dead


def test_the_children_of_a_killed_worker_end_by_themselves(field: Field) -> None:
    field.publish(40, seconds=0.05)
    daemon = field.start()
    until(lambda: len(field.lines()) > 4, 30, "some jobs")
    orphans = children_of(daemon.process.pid)
    assert len(orphans) >= SLOTS
    daemon.process.kill()
    daemon.process.wait()
    until(lambda: not any(map(alive, orphans)), 20, "its children to end")
    second = field.start()
    field.wait_all_done()
    assert second.stop() == 0
    check(field.close(), again=SLOTS)


@pytest.mark.soak
def test_poison_is_tried_as_often_as_stated_and_harms_no_neighbour(field: Field) -> None:
    limit = 8
    daemon = field.start()
    field.publish(1, job="poison", seconds=0)
    field.publish(100, seconds=0.01)
    until(lambda: ready_in(field.address, DEAD), 60, "the dead letter")
    field.wait_done(lambda done: len(done) == 100)
    assert daemon.stop() == 0
    ledger = field.close()
    check(ledger)
    assert list(ledger.dead) == ["poison-000000"]
    attempts = [line.attempt for line in ledger.runs if line.id == "poison-000000"]
    assert attempts == list(range(1, limit + 2))
    assert ledger.counted == {"poison-000000"}


def alive(pid: int) -> bool:
    """Say whether a process runs; a zombie, whom nobody waits for, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
