"""What a batch job may be, and how the messages of one call end."""

from __future__ import annotations

from typing import Any

import pytest

from broker.body import Body, encode
from broker.errors import InvalidInput
from broker.message import EMBED
from consumers.batch.item import Failed, Item, Word
from consumers.batch.task import BatchTask, batch_options
from consumers.failure.verdict import GiveUp, TryAgain
from consumers.job import current_jobs, job


def items(*args: Any, **changes: Any) -> list[Item]:
    found = []
    for n, arg in enumerate(args):
        body = arg if isinstance(arg, Body) else encode([[arg], {}, changes.get("embed", EMBED)])
        found.append(Item(str(n), body.content, body.content_type, False, None, None))
    return found


def endings(function: Any, given: list[Item], **options: Any) -> list[Any]:
    """Return how messages end: a word, or reason, error and whether they are tried again."""
    # Without an application: those of a process share the tasks that `job` makes.
    made = batch_options("test.batch", function, batch=10, wait="20ms", options={})
    verdicts = {name: tuple(kinds) for name, kinds in options.items()}
    body = {"name": "test.batch", "run": staticmethod(function), "backend": None}
    task = type("Task", (BatchTask,), {**body, **made, **verdicts})()
    report = task.run_all(given, hostname="normal@here")
    return [
        (str(each.failure.reason), each.failure.error.rpartition(".")[2], each.again)
        if isinstance(each, Failed)
        else each
        for each in report.endings
    ]


def test_each_result_is_its_message_s_own() -> None:
    def function(value: list[int]) -> list[Any]:
        assert [one.id for one in current_jobs()] == ["0", "1", "2", "3", "4"]
        return [1, ValueError("no"), KeyError("no"), TryAgain("later"), GiveUp("never")]

    found = endings(
        function, items(1, 2, 3, 4, 5), retry_on=[ValueError, GiveUp], give_up_on=[TryAgain]
    )
    assert found == [
        Word.DONE,
        ("failed", "ValueError", True),
        ("given-up", "KeyError", False),
        ("failed", "TryAgain", True),
        ("given-up", "GiveUp", False),
    ]
    assert current_jobs() == ()


def test_none_is_done_for_all() -> None:
    def function(value: list[int]) -> None: ...

    assert endings(function, items(1, 2)) == [Word.DONE, Word.DONE]


def test_an_error_of_the_call_is_the_error_of_each() -> None:
    def function(value: list[int]) -> None:
        raise OSError("the disk")

    assert endings(function, items(1, 2)) == [("failed", "OSError", True)] * 2


@pytest.mark.parametrize("returned", [[1], [1, 2, 3], "ab", {"a": 1, "b": 2}, 5, b"ab"])
def test_what_is_not_a_result_for_each_is_given_up(returned) -> None:
    def function(value: list[int]) -> Any:
        return returned

    assert endings(function, items(1, 2)) == [("given-up", "WrongResults", False)] * 2


def test_what_does_not_fit_is_taken_out_and_what_is_no_plain_job_runs_alone() -> None:
    def function(value: list[int]) -> list[int]:
        assert value == [1, 4]
        return value

    broken = Body(b"[[", "application/json", "utf-8")
    no_job = encode([1])
    assert endings(function, items(1, "x", broken, no_job, 4)) == [
        Word.DONE,
        ("arguments", "InvalidArguments", False),
        Word.ALONE,
        Word.ALONE,
        Word.DONE,
    ]
    chained = {**EMBED, "chain": [{"task": "next"}]}
    assert endings(function, items(1, embed=chained)) == [Word.ALONE]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch": 0}, "batch must be from 1 to 10,000"),
        ({"batch": 10_001}, "batch must be from 1 to 10,000"),
        ({"batch": True}, "batch must be from 1"),
        ({"batch": 5, "wait": "soon"}, "wait: "),
        ({"batch": 5, "wait": "2m"}, "wait must be at most 60 s"),
        ({"batch": 5, "bind": True}, "leave out bind"),
        ({"batch": 5, "once": "1h"}, "a batch cannot run once"),
    ],
    ids=str,
)
def test_options_that_make_no_batch_are_refused_when_the_task_is_defined(options, text) -> None:
    def function(value: list[int]) -> None: ...

    with pytest.raises(InvalidInput, match=text):
        job("test.refused", **options)(function)
