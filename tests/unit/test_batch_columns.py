"""A batch job's parameters get the values of many messages, arrays stacked where they agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from broker.errors import InvalidArguments, InvalidInput
from consumers.agreement import differences
from consumers.batch.columns import Columns
from consumers.batch.stack import stacked
from consumers.signature import Signature


def calls(function: Callable[..., Any], *messages: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    """Return the arguments of each call that messages' positional arguments lead to."""
    columns = Columns("test.job", function)
    rows = [columns.row(args, {}) for args in messages]
    return [columns.arguments([rows[at] for at in group]) for group in columns.groups(rows)]


def numbers(value: list[int]) -> None: ...


def arrays(series: np.ndarray, window: list[int]) -> None: ...


def array_lists(series: list[np.ndarray]) -> None: ...


def either(series: list[np.ndarray] | np.ndarray) -> None: ...


def anything(value, other=7) -> None: ...


def test_a_list_gets_one_value_a_message_converted_like_that_of_a_single_job() -> None:
    assert calls(numbers, (1,), ("2",), (3.0,)) == [([], {"value": [1, 2, 3]})]


def test_arrays_of_one_shape_come_as_one_array_that_may_be_written_to() -> None:
    ((_, kwargs),) = calls(arrays, (np.arange(3), 5), ([3, 4, 5], 7))
    assert_array_equal(kwargs["series"], [[0, 1, 2], [3, 4, 5]])
    assert kwargs["series"].flags.writeable
    assert kwargs["window"] == [5, 7]


@pytest.mark.parametrize(
    "shape", [(), (0,), (3,), (2, 0), (2, 3)], ids=["0-dim", "empty", "1", "2x0", "2x3"]
)
@pytest.mark.parametrize("dtype", ["f8", "i4", "?", "U3", "M8[s]", [("a", "i4"), ("b", "f8")]])
def test_every_shape_and_dtype_is_stacked_along_a_new_first_axis(shape, dtype) -> None:
    one = np.zeros(shape, dtype)
    together = stacked([one, one, one])
    assert together is not None
    assert (together.shape, together.dtype) == ((3, *shape), one.dtype)


@pytest.mark.parametrize(
    "others",
    [np.zeros(4), np.zeros((3, 1)), np.zeros(3, "f4"), np.zeros(3, ">f8"), [0.0, 0.0, 0.0], None],
    ids=["longer", "2-dim", "single", "big-endian", "list", "none"],
)
def test_what_does_not_agree_is_not_stacked(others) -> None:
    assert stacked([np.zeros(3), others]) is None
    assert stacked([others, np.zeros(3)]) is None


def test_arrays_of_other_shapes_are_calls_of_their_own_and_each_message_is_in_one() -> None:
    found = calls(
        arrays,
        (np.array([1.0]), 1),
        (np.array([2.0, 2.0]), 2),
        (np.array([3.0]), 3),
        (np.array([4]), 4),
    )
    assert [kwargs["window"] for _, kwargs in found] == [[1, 3], [2], [4]]
    assert [kwargs["series"].shape for _, kwargs in found] == [(2, 1), (1, 2), (1, 1)]


def test_a_list_of_arrays_is_never_stacked() -> None:
    ((_, kwargs),) = calls(array_lists, (np.zeros(3),), ([1, 2, 3],))
    assert [type(each) for each in kwargs["series"]] == [np.ndarray, np.ndarray]
    assert isinstance(kwargs["series"], list)


@pytest.mark.parametrize("function", [either, anything])
def test_where_either_will_do_arrays_are_stacked_if_all_agree_and_else_a_list(function) -> None:
    ((_, alike),) = calls(function, (np.zeros(3),), (np.ones(3),))
    ((_, unlike),) = calls(function, (np.zeros(3),), (np.ones(4),))
    (name,) = set(alike) - {"other"}
    assert alike[name].shape == (2, 3)
    assert [each.shape for each in unlike[name]] == [(3,), (4,)]


def test_a_message_that_leaves_a_parameter_out_has_the_default_as_its_entry() -> None:
    ((_, kwargs),) = calls(anything, (1,), (2, 3))
    assert kwargs == {"value": [1, 2], "other": [7, 3]}


def test_positional_only_parameters_are_given_by_position() -> None:
    def function(a: list[int], /, b: Sequence[str]) -> None: ...

    assert calls(function, (1, "x"), (2, "y")) == [([[1, 2]], {"b": ["x", "y"]})]


@pytest.mark.parametrize("args", [(), ("x",), (1, 2), (None,)])
def test_a_message_that_does_not_fit_is_refused_by_itself(args) -> None:
    with pytest.raises(InvalidArguments, match=r"test\.job"):
        Columns("test.job", numbers).row(args, {})


def test_no_messages_are_no_call() -> None:
    for function in (numbers, arrays, either):
        assert Columns("test.job", function).groups([]) == []


def test_a_parameter_that_takes_one_value_is_refused_when_the_task_is_defined() -> None:
    def scalar(value: int) -> None: ...

    def variadic(*values: list[int]) -> None: ...

    def mixed(value: list[int] | dict[str, int]) -> None: ...

    with pytest.raises(InvalidInput, match=r"'value' gets the values .* not int"):
        Columns("test.job", scalar)
    with pytest.raises(InvalidInput, match="name each parameter"):
        Columns("test.job", variadic)
    with pytest.raises(InvalidInput, match="'value' gets the values"):
        Columns("test.job", mixed)


def test_the_arguments_of_the_file_are_those_of_one_message() -> None:
    def function(series: np.ndarray, window: list[int], name: list[str] | None = None) -> None: ...

    one = Columns("test.job", function).one
    stated = {"series": {"type": "array"}, "window": {"type": "integer"}}
    assert list(differences(one, {**stated, "name": {"type": "string", "default": ""}})) == []
    assert "'window'" in next(differences(one, {**stated, "window": {"type": "string"}}))
    assert "'window'" in next(differences(one, {"series": {"type": "array"}}))


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((1, "2"), {}, {"a": 1, "b": 2}),
        ((), {"b": "2", "a": 1}, {"a": 1, "b": 2}),
        ((1,), {"b": 2}, {"a": 1, "b": 2}),
        ((1,), {}, {"a": 1}),
    ],
)
def test_the_usual_arguments_are_checked_as_the_unusual_ones(args, kwargs, expected) -> None:
    def function(a: int, b: int = 7) -> None: ...

    signature = Signature("test.job", function)
    assert signature.values(args, kwargs) == expected
    for wrong in (("x", 1), {"a": 1, "b": "x"}, {"a": 1, "c": 2}, (1, 2, 3), {"b": 1}):
        with pytest.raises(InvalidArguments):
            signature.values(*((wrong, {}) if isinstance(wrong, tuple) else ((), wrong)))


def test_what_must_be_given_by_name_is_not_taken_by_position() -> None:
    def function(a: int, *, b: int) -> None: ...

    def positions(a: int, b: int, /) -> None: ...

    assert Signature("test.job", function).values((), {"a": 1, "b": 2}) == {"a": 1, "b": 2}
    with pytest.raises(InvalidArguments):
        Signature("test.job", function).values((1, 2), {})
    with pytest.raises(InvalidArguments):
        Signature("test.job", positions).values((), {"a": 1, "b": 2})
