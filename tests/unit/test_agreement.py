"""A task's signature and its job's arguments in the file are compared before anything runs."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import numpy as np
import pytest

from broker.topology import Topology
from consumers.agreement import differences
from consumers.job import Array
from tests.provision import REFERENCE


def takes(a: int, b: float = 1.0, *, c: str | None = None) -> None: ...
def array(series: np.ndarray, other: Array, method: Literal["x", "y"] = "x") -> None: ...
def anything(**values: Any) -> None: ...
def bound(self: Any, a: list[int]) -> None: ...


NUMBER, INTEGER, TEXT = ({"type": kind} for kind in ("number", "integer", "string"))


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (takes, {"a": INTEGER}),
        (takes, {"a": INTEGER, "b": NUMBER, "c": TEXT}),
        (takes, {"a": INTEGER, "b": INTEGER, "c": {"type": ["string", "null"]}}),
        (takes, {"a": {"minimum": 1}}),
        (array, {"series": {"type": "array"}, "other": {"type": "array"}}),
        (array, {"series": {}, "other": {}, "method": {"enum": ["x"]}}),
        (anything, {"a": INTEGER, "b": TEXT}),
    ],
)
def test_what_fits(function: Any, arguments: dict[str, Any]) -> None:
    assert list(differences(function, arguments)) == []


@pytest.mark.parametrize(
    ("function", "arguments", "found"),
    [
        (takes, {}, "the task needs the argument 'a', which the file does not have"),
        (takes, {"a": INTEGER, "d": {}}, "the file has the argument 'd', which the task does not"),
        (takes, {"a": {**INTEGER, "default": 1}}, "needs the argument 'a', which the file gives a"),
        (takes, {"a": NUMBER}, "'a' is of type number in the file, and the task takes integer"),
        (takes, {"a": {"enum": ["x", 1]}}, "'a' is of type integer, string in the file"),
        (array, {"series": TEXT, "other": {}}, "'series' is of type string in the file"),
    ],
)
def test_what_does_not_fit(function: Any, arguments: dict[str, Any], found: str) -> None:
    (difference,) = differences(function, arguments)
    assert found in difference


def test_a_task_that_is_given_itself_first_and_one_of_batches() -> None:
    assert list(differences(bound, {"a": {"type": "array"}}, bound=True)) == []
    # A batch is given a list of each.
    assert list(differences(bound, {"a": INTEGER}, bound=True, typed=False)) == []


def test_the_reference_topology_says_what_its_tasks_take() -> None:
    topology = Topology.load(REFERENCE)
    compared = 0
    for name, job in topology.jobs.items():
        assert job.task is not None
        module, _, attribute = job.task.partition(":")
        function = inspect.unwrap(getattr(__import__(module, fromlist=[attribute]), attribute).run)
        assert job.arguments is not None, name
        assert list(differences(function, job.arguments)) == [], name
        compared += 1
    assert compared >= 8
