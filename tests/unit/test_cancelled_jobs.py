"""Cancellations in a worker: what they are about, what is remembered, what processes see of it."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.cancellation import CLOCK_SKEW_MS, Cancellation, read_cancellation
from broker.case_file import Reason
from broker.errors import InvalidMessage
from broker.message import PUBLISHED
from broker.topology import Topology
from consumers.cancel.jobs import CancelledJobs, refusal
from consumers.cancel.table import Table
from consumers.dead_letters.letter import Letter
from consumers.dead_letters.replay import again
from consumers.queues.browse import Delivery
from tests.docs import ROOT
from tests.letters import PUBLISHED_MS, letter

NOW_MS = 1_700_000_000_000


def cancel(id: str, at_ms: int = NOW_MS) -> Cancellation:
    return Cancellation(id, "somebody", at_ms)


# -- the message --------------------------------------------------------------------------------


@given(st.text(min_size=1, max_size=50), st.text(max_size=50), st.integers(0, 2**53))
def test_a_cancellation_is_read_as_it_was_written(id: str, by: str, at_ms: int) -> None:
    written = Cancellation(id, by, at_ms).message()
    assert read_cancellation(written.body.content) == Cancellation(id, by, at_ms)


@pytest.mark.parametrize("id", ["", "x" * 256])
def test_what_can_be_no_id_is_refused(id: str) -> None:
    with pytest.raises(InvalidMessage, match="1 to 255 bytes"):
        cancel(id).message()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"id": 5}', b'{"id": ""}', b"\xff"])
def test_what_is_no_cancellation_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidMessage):
        read_cancellation(body)


@given(st.binary(max_size=60))
def test_anything_else_is_read_or_refused(body: bytes) -> None:
    try:
        read_cancellation(body)
    except InvalidMessage:
        return


def test_one_without_a_time_is_about_all_messages_of_its_id() -> None:
    found = read_cancellation('{"id": "a"}')
    assert found.holds_for(NOW_MS)
    assert found.holds_for(None)


# -- what is remembered -------------------------------------------------------------------------


def test_a_message_that_was_published_before_is_cancelled_and_a_later_one_is_not() -> None:
    jobs = CancelledJobs(in_hand=lambda _: True)
    jobs.add(cancel("a"))
    before = {"id": "a", PUBLISHED: NOW_MS - 1, "task": "demo.add"}
    found = jobs.about(before)
    assert found is not None
    assert "'demo.add' (a) was not begun: it was cancelled by somebody" in str(
        refusal(before, found)
    )
    assert jobs.about({"id": "b", PUBLISHED: NOW_MS - 1}) is None
    assert jobs.about({"id": ["a"]}) is None
    assert jobs.holds("a")
    # Clocks differ a little.
    assert jobs.about({"id": "a", PUBLISHED: NOW_MS + CLOCK_SKEW_MS}) is not None
    # Whoever publishes the same job again wants it to run.
    assert jobs.about({"id": "a", PUBLISHED: NOW_MS + CLOCK_SKEW_MS + 1}) is None
    assert not jobs.holds("a")
    assert len(jobs) == 0


def test_no_more_are_remembered_than_there_is_room_for_and_the_latest_are() -> None:
    jobs = CancelledJobs(most=1000, in_hand=lambda _: False)
    for number in range(5000):
        jobs.add(cancel(str(number)))
    jobs.add(cancel("4000"))
    assert len(jobs) == 1000
    assert jobs.about({"id": "4999"}) is not None
    assert jobs.about({"id": "3999"}) is None
    for number in range(999):
        jobs.add(cancel(f"more {number}"))
    assert jobs.about({"id": "4000"}) is not None


def test_what_the_stream_has_dropped_is_forgotten_with_the_next_one() -> None:
    now = 0.0
    jobs = CancelledJobs(in_hand=lambda _: False, clock=lambda: now)
    jobs.add(cancel("old"))
    now = 86_401.0
    jobs.add(cancel("new"))
    assert jobs.about({"id": "old"}) is None
    assert jobs.about({"id": "new"}) is not None


def test_only_jobs_that_are_here_take_room_that_processes_see() -> None:
    jobs = CancelledJobs(in_hand=lambda id: id == "mine")
    jobs.add(cancel("mine"))
    jobs.add(cancel("theirs"))
    assert (jobs.holds("mine"), jobs.holds("theirs")) == (True, False)
    # It came into hand meanwhile.
    jobs.show({"id": "theirs"})
    assert jobs.holds("theirs")


# -- memory that processes share ----------------------------------------------------------------


def test_a_process_that_was_forked_before_sees_what_its_parent_adds() -> None:
    table = Table()
    told, tell = os.pipe()
    heard, hear = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(hear, b"1" if "a" in table else b"0")
        os.read(told, 1)
        os.write(hear, b"1" if "a" in table and "b" not in table else b"0")
        os._exit(0)
    try:
        assert os.read(heard, 1) == b"0"
        table.add("a")
        os.write(tell, b".")
        assert os.read(heard, 1) == b"1"
    finally:
        os.waitpid(pid, 0)
        for each in (told, tell, heard, hear):
            os.close(each)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=100))
def test_a_table_with_room_is_a_set(steps: list[tuple[bool, int]]) -> None:
    table, model = Table(buckets=256), set()
    for adds, number in steps:
        (table.add if adds else table.discard)(str(number))
        (model.add if adds else model.discard)(number)
    assert {number for number in range(31) if str(number) in table} == model


def test_a_full_table_forgets_the_oldest_of_a_bucket_and_takes_no_others_for_them() -> None:
    table = Table(buckets=1)
    for number in range(20):
        table.add(str(number))
    assert [number for number in range(20) if str(number) in table] == list(range(12, 20))
    assert len(table) == 8


def test_thousands_of_ids_take_no_more_memory_than_one() -> None:
    table = Table()
    for number in range(20_000):
        table.add(f"early {number}")
    last = [f"late {number}" for number in range(1000)]
    for id in last:
        table.add(id)
    assert len(table) == 8192
    assert all(id in table for id in last)
    assert not any(f"other {number}" in table for number in range(1000))


def test_threads_may_add_and_ask_at_once() -> None:
    jobs = CancelledJobs(most=500, in_hand=lambda _: True)

    def work(name: int) -> None:
        for number in range(500):
            jobs.add(cancel(f"{name}-{number}"))
            assert jobs.about({"id": f"{name}-{number}", PUBLISHED: NOW_MS}) is not None or (
                len(jobs) == 500
            )

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(jobs) == 500
    assert jobs.holds("3-499")


@pytest.mark.parametrize(("reason", "stays"), [(Reason.CANCELLED, False), (Reason.FAILED, True)])
def test_only_a_replay_of_what_was_cancelled_is_not_cancelled_any_more(
    reason: Reason, stays: bool
) -> None:
    jobs = CancelledJobs(in_hand=lambda _: False)
    jobs.add(cancel("a", PUBLISHED_MS + 1000))
    dead = letter(Topology.load(ROOT / "topology.yaml"), "a", reason=reason)
    delivery = Delivery(1, "jobs.dead", "", False, b"", dead.headers, dead.properties)
    sent = again(Letter.of("jobs.dead", delivery), PUBLISHED_MS + 60_000)
    assert (jobs.about(sent.headers) is not None) is stays
