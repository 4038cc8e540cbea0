"""A task with `once=` answers for what finished, and runs whatever did not."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Reject

from broker.case_file import Reason
from broker.connection import Address
from broker.errors import InvalidInput, TopologyError, WorkerError
from broker.message import CALL, DEADLINE
from consumers.errors import StoreError
from consumers.factory import make_app
from consumers.job import JobTask, job
from consumers.once import Key, Record
from consumers.once.chosen import ChosenStore
from consumers.once.sqlite import SqliteStore
from consumers.once.task import OnceTask, ResultNotKept, check_store
from tests.provision import topology_of

FILE = """
version: 1
name: once
exchanges: {{jobs: {{type: topic}}}}
queues:
  here: {{type: quorum, bindings: [{{exchange: jobs, routing_key: "#"}}]}}
jobs:
  once.paid: {{exchange: jobs, routing_key: here}}
{once}
"""


class Memory:
    """A store that keeps what it is given in a dictionary, or fails."""

    def __init__(self) -> None:
        self.kept: dict[Key, tuple[Record, float]] = {}
        self.broken: Exception | None = None

    def find(self, key: Key) -> Record | None:
        if self.broken:
            raise self.broken
        found = self.kept.get(key)
        return None if found is None else found[0]

    def keep(self, key: Key, record: Record, *, ttl_s: float) -> None:
        if self.broken:
            raise self.broken
        self.kept[key] = record, ttl_s


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    topology, _ = topology_of(tmp_path, FILE.format(once=""))
    made = make_app(topology, Address.parse("amqp://localhost/"))
    made.once = Memory()
    # A task of this application only: shared ones would be in those of all other tests, too.
    monkeypatch.setattr("consumers.job.celery.shared_task", partial(made.task, shared=False))
    return made


def task_of(app: Any, function: Any, **options: Any) -> Any:
    """Return the task of a function in an application, as a worker runs it."""
    function.__name__ = "paid"
    job("once.paid", once="1h30m", **options)(function)
    app.finalize()
    return app.tasks["once.paid"]


def deliver(task: Any, *args: Any, id: str = "one", **headers: Any) -> Any:
    """Run a task as one delivery of a message does; return or raise what it does."""
    task.push_request(
        id=id, called_directly=False, args=args, kwargs={}, delivery_info={}, **headers
    )
    try:
        return task(*args)
    finally:
        task.pop_request()


def test_what_finished_does_not_run_again_under_the_same_id(app) -> None:
    ran: list[int] = []
    task = task_of(app, lambda number: ran.append(number))
    assert [deliver(task, each) for each in (1, 1, 1)] == [None] * 3
    assert ran == [1]
    deliver(task, 2, id="two")
    assert ran == [1, 2]
    assert {key: ttl_s for key, (_, ttl_s) in app.once.kept.items()} == {
        Key("once.paid", "one"): 5400.0,
        Key("once.paid", "two"): 5400.0,
    }


@pytest.mark.parametrize(
    "headers",
    [{CALL: True}, {"reply_to": "amq.rabbitmq.reply-to"}, {"callbacks": [{}]}, {"chain": [{}]}],
    ids=["a call", "a client of Celery's", "a link", "a chain"],
)
def test_whoever_waits_gets_the_result_of_the_first_run(app, headers) -> None:
    ran: list[int] = []

    def paid() -> dict[str, int]:
        ran.append(1)
        return {"runs": len(ran)}

    task = task_of(app, paid)
    assert [deliver(task, **headers) for _ in range(3)] == [{"runs": 1}] * 3


def test_what_failed_runs_again(app) -> None:
    ran: list[int] = []

    def paid() -> None:
        ran.append(1)
        if len(ran) == 1:
            raise OSError("not now")

    task = task_of(app, paid)
    with pytest.raises(Reject):
        deliver(task)
    assert app.once.kept == {}
    deliver(task)
    deliver(task)
    assert ran == [1, 1]


def test_what_finished_in_time_is_no_dead_letter_when_it_comes_again_too_late(app) -> None:
    task = task_of(app, lambda: "done")
    deliver(task, **{CALL: True})
    assert deliver(task, **{CALL: True, DEADLINE: 1}) == "done"
    with pytest.raises(Reject):
        deliver(task, id="another", **{DEADLINE: 1})


def test_a_store_that_cannot_tell_returns_the_job_whatever_its_task_retries_on(app) -> None:
    ran: list[int] = []
    task = task_of(app, lambda: ran.append(1), retry_on=[OSError], give_up_on=[StoreError])
    app.once.broken = StoreError("the disk is gone")
    with pytest.raises(Reject) as caught:
        deliver(task)
    assert caught.value.requeue
    assert caught.value.reason.reason is Reason.FAILED
    assert "the disk is gone" in caught.value.reason.message
    with pytest.raises(StoreError, match="the disk is gone"):
        deliver(task, **{CALL: True})
    assert ran == []


def test_a_record_that_cannot_be_kept_does_not_fail_what_has_run(app, caplog) -> None:
    def paid() -> str:
        app.once.broken = StoreError("the disk is full")
        return "done"

    assert deliver(task_of(app, paid), **{CALL: True}) == "done"
    app.once.broken = None
    assert app.once.kept == {}
    assert "finished and could not be recorded" in caplog.text


def test_a_result_that_was_not_kept_is_an_error_for_who_waits_and_no_second_run(app) -> None:
    ran: list[int] = []
    task = task_of(app, lambda: ran.append(1))
    deliver(task)
    with pytest.raises(ResultNotKept, match="finished in an earlier delivery"):
        deliver(task, **{CALL: True})
    with pytest.raises(Reject) as caught:
        deliver(task, reply_to="somebody")
    assert caught.value.requeue is False
    assert ran == [1]


def test_a_recorded_result_that_cannot_be_read_is_tried_again(app) -> None:
    task = task_of(app, lambda: "again?")
    app.once.kept[Key("once.paid", "one")] = Record(0, b"{", "application/json"), 1.0
    with pytest.raises(Reject) as caught:
        deliver(task, reply_to="somebody")
    assert caught.value.requeue


def test_coroutines_are_recorded_when_they_end(app) -> None:
    ran: list[int] = []

    async def paid() -> str:
        ran.append(1)
        return "done"

    task = task_of(app, paid)
    assert [deliver(task, **{CALL: True}) for _ in range(2)] == ["done", "done"]
    assert ran == [1]


@pytest.mark.parametrize("text", ["a day", "24", "0s", ""])
def test_how_long_is_a_duration(text) -> None:
    with pytest.raises(InvalidInput, match=r"job 'once\.wrong'"):
        job("once.wrong", once=text)


def test_a_batch_cannot_run_once() -> None:
    with pytest.raises(InvalidInput, match="leave out `once` or `batch`"):
        job("once.many", once="24h", batch=10)


def test_other_jobs_have_nothing_of_it(app) -> None:
    def plain() -> None:
        """Do nothing."""

    assert isinstance(task_of(app, lambda: None), OnceTask)
    job("once.plain")(plain)
    task = app.tasks["once.plain"]
    assert isinstance(task, JobTask)
    assert type(task)._run is JobTask._run


# -- the store that a topology names --------------------------------------------------------


def chosen(folder: Path, store: str) -> ChosenStore:
    topology, _ = topology_of(folder, FILE.format(once=f"once: {{store: {store!r}}}"))
    return ChosenStore(topology)


def test_a_file_lies_beside_the_topology_that_names_it(tmp_path, monkeypatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    found = chosen(tmp_path, "sqlite:once.sqlite3")
    found.check()
    found.keep(Key("a", "b"), Record.of(1), ttl_s=60)
    assert found.find(Key("a", "b")).result() == 1
    assert (tmp_path / "once.sqlite3").exists()
    absolute = chosen(tmp_path, f"sqlite:{elsewhere / 'there.sqlite3'}")
    absolute.check()
    assert (elsewhere / "there.sqlite3").exists()


def test_a_function_of_the_users_makes_the_store_in_each_process(tmp_path, monkeypatch) -> None:
    (tmp_path / "own_store.py").write_text(
        "import os\n"
        "from tests.unit.test_once_task import Memory\n"
        "made = []\n"
        "class Stores:\n"
        "    @staticmethod\n"
        "    def memory():\n"
        "        made.append(os.getpid())\n"
        "        return Memory()\n"
        "number = 7\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = chosen(tmp_path, "own_store:Stores.memory")
    found.check()
    import own_store

    # Not before a fork.
    assert own_store.made == []
    found.keep(Key("a", "b"), Record.of(1), ttl_s=60)
    assert found.find(Key("a", "b")) is not None
    assert own_store.made == [os.getpid()]
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert found.find(Key("a", "b")) is None
    assert own_store.made[1:] == [1]


@pytest.mark.parametrize(
    ("store", "text"),
    [
        ("no.such:thing", "cannot be imported"),
        ("math:nothing", "cannot be imported"),
        ("math:pi", "is no function"),
    ],
)
def test_a_store_that_is_none_is_refused(tmp_path, store, text) -> None:
    with pytest.raises(StoreError, match=text):
        chosen(tmp_path, store).check()


def test_what_a_store_of_the_users_raises_is_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "bad_store.py").write_text("def make():\n    raise KeyError('no database')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(StoreError, match="'bad_store:make' of finished jobs failed: KeyError"):
        chosen(tmp_path, "bad_store:make").find(Key("a", "b"))


@pytest.mark.parametrize("store", ["sqlite:", "once.sqlite3", "postgres://somewhere", ""])
def test_the_file_says_which_in_one_of_two_ways(tmp_path, store) -> None:
    with pytest.raises(TopologyError, match="once"):
        chosen(tmp_path, store)


def test_a_worker_needs_a_store_for_such_a_job_only(tmp_path, app) -> None:
    check_store(SimpleNamespace(tasks={}, once=None))
    task_of(app, lambda: None)
    topology, _ = topology_of(tmp_path, FILE.format(once=""))
    app.once = ChosenStore(topology)
    with pytest.raises(WorkerError, match=r"'once\.paid' is to run once.*add `once: "):
        check_store(app)
    app.once = SqliteStore(tmp_path / "once.sqlite3")
    check_store(app)
    app.once = SqliteStore(tmp_path)
    with pytest.raises(WorkerError, match="Is a directory"):
        check_store(app)
