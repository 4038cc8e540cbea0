"""Arguments as the function of a job is called with them."""

from __future__ import annotations

from typing import Any

import pytest

from broker.errors import InvalidArguments
from consumers.signature import Signature


def ordinary(a: int, b: int = 7) -> Any:
    return a, b


def by_position(a: int, b: int = 7, /) -> Any:
    return a, b


def by_name(*, a: int, b: int = 7) -> Any:
    return a, b


def any_number(a: int, *others: int, **more: int) -> Any:
    return a, *others, *sorted(more.items())


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "expected"),
    [
        (ordinary, ["1", 2], {}, (1, 2)),
        (ordinary, [], {"b": 2, "a": "1"}, (1, 2)),
        (ordinary, [1], {"b": "2"}, (1, 2)),
        (ordinary, ["1"], {}, (1, 7)),
        (by_position, ["1", 2], {}, (1, 2)),
        (by_position, [1], {}, (1, 7)),
        (by_name, [], {"a": "1", "b": 2}, (1, 2)),
        (by_name, [], {"a": "1"}, (1, 7)),
        (any_number, ["1", 2, "3"], {"c": "4"}, (1, 2, 3, ("c", 4))),
        (lambda: "nothing", [], {}, "nothing"),
    ],
)
def test_a_function_gets_its_arguments_checked_however_they_are_given(
    function, args, kwargs, expected
) -> None:
    given = list(args), dict(kwargs)
    bound = Signature("test.job", function).bind(args, kwargs)
    assert function(*bound[0], **bound[1]) == expected
    assert (args, kwargs) == given


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (ordinary, ["x", 1], {}),
        (ordinary, [], {"a": 1, "b": "x"}),
        (ordinary, [1, 2, 3], {}),
        (ordinary, [1], {"a": 1}),
        (by_position, [], {"a": 1, "b": 2}),
        (by_name, [1, 2], {}),
    ],
)
def test_what_does_not_fit_is_refused(function, args, kwargs) -> None:
    with pytest.raises(InvalidArguments, match=r"test\.job"):
        Signature("test.job", function).bind(args, kwargs)
