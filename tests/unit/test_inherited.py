"""What is published within a job: no later a deadline than its own, and its origin."""

from __future__ import annotations

import pickle
from dataclasses import asdict, replace

from broker import inherited
from broker.contracts import Job
from broker.inherited import Parent, detached, with_deadline
from broker.message import DEADLINE
from consumers.cancel.table import Table
from consumers.current import CurrentJob, current_job, enter, enter_batch, leave, leave_batch
from consumers.delays import inherit_deadline

NOW_S = 1_700_000_000.0
PARENT = Parent("p", "r", NOW_S + 5)


def job(id: str, deadline_s: float | None, **options: object) -> CurrentJob:
    return CurrentJob(
        name="demo.add", id=id, attempt=1, redelivered=False, deadline_s=deadline_s, call=False,
        **options,  # type: ignore[arg-type]
    )  # fmt: skip


def test_the_earlier_deadline_counts() -> None:
    plain = Job("demo.add")
    assert with_deadline(plain, PARENT, None, now_s=NOW_S).deadline_s == 5
    assert with_deadline(plain, PARENT, 60.0, now_s=NOW_S).deadline_s == 5
    # The contract's own is as good: nothing is to be said.
    assert with_deadline(plain, PARENT, 3.0, now_s=NOW_S).deadline_s is None
    own = Job("demo.add", deadline_s=2.0)
    assert with_deadline(own, PARENT, 1.0, now_s=NOW_S) is own
    assert with_deadline(Job("demo.add", deadline_s=9.0), PARENT, 1.0, now_s=NOW_S).deadline_s == 5
    assert with_deadline(plain, Parent("p", "r", None), 60.0, now_s=NOW_S) is plain
    # Past it, whoever gets the job finds it too late.
    assert with_deadline(plain, PARENT, None, now_s=NOW_S + 6).deadline_s == 0.001


def test_a_timeout_ends_with_the_deadline() -> None:
    assert PARENT.at_most(30.0, now_s=NOW_S) == 5
    assert PARENT.at_most(3.0, now_s=NOW_S) == 3
    assert PARENT.at_most(3.0, now_s=NOW_S + 60) == 0.001
    assert Parent("p", "r", None).at_most(30.0, now_s=NOW_S) == 30
    # What is no timeout stays none.
    assert PARENT.at_most(-1.0, now_s=NOW_S) == -1


def test_code_of_a_job_runs_within_it_and_detached_code_does_not() -> None:
    assert inherited.parent() is None
    token = enter(job("a", NOW_S, root_id="r"))
    try:
        assert inherited.parent() == Parent("a", "r", NOW_S)
        with detached():
            assert inherited.parent() is None
            assert current_job() is not None
        assert inherited.parent() == Parent("a", "r", NOW_S)
    finally:
        leave(token)
    assert inherited.parent() is None


def test_what_a_batch_publishes_is_wanted_as_long_as_any_job_of_it() -> None:
    for deadlines, latest in (((3.0, 7.0), 7.0), ((3.0, None), None), ((None, None), None)):
        token = enter_batch(lambda: (job("a", NOW_S),), deadlines)
        try:
            assert inherited.parent() == Parent(None, None, latest)
        finally:
            leave_batch(token)


def test_a_task_of_celerys_that_a_job_sends_has_its_deadline() -> None:
    headers: dict[str, object] = {}
    inherit_deadline(headers)
    assert headers == {}
    token = enter(job("a", NOW_S))
    try:
        inherit_deadline(headers)
        assert headers == {DEADLINE: NOW_S * 1000}
        earlier = {DEADLINE: 5}
        inherit_deadline(earlier)
        assert earlier == {DEADLINE: 5}
    finally:
        leave(token)


def test_the_current_job_is_a_value_that_can_be_copied_and_sent() -> None:
    table = Table()
    table.add("a")
    current = job("a", NOW_S, root_id="r", is_cancelled=table.__contains__)
    assert current.cancelled
    assert replace(current, attempt=2).attempt == 2
    assert "is_cancelled" not in asdict(current)
    assert asdict(current)["root_id"] == "r"
    copy = pickle.loads(pickle.dumps(current))
    assert copy == current
    assert not copy.cancelled
