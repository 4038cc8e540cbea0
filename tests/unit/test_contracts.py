"""Contracts check what producers pass in."""

from __future__ import annotations

import numpy as np
import pytest

from broker.contracts import Contract
from broker.errors import InvalidArguments

SMOOTH = Contract(
    "signal.smooth",
    "jobs",
    "low.signal.smooth",
    arguments={
        "series": {"type": "array", "items": {"type": "number"}},
        "window": {"type": "integer", "minimum": 1, "default": 13},
        "method": {"enum": ["moving", "gaussian"], "default": "moving"},
    },
)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (([1.0, 2.0],), {}),
        ((np.arange(3.0),), {"window": 3}),
        ((), {"series": np.arange(3), "window": np.int64(3), "method": "gaussian"}),
        ((np.zeros(0), 5, "moving"), {}),
    ],
)
def test_arguments_that_fit_pass(args: tuple, kwargs: dict) -> None:
    SMOOTH.check(args, kwargs)


@pytest.mark.parametrize(
    ("args", "kwargs", "argument", "text"),
    [
        ((), {}, "series", "needs the argument 'series'"),
        (("abc",), {}, "series", "'abc' is not of type array"),
        ((np.array(1.0),), {}, "series", "not of type array"),
        ((np.array(["a"]),), {}, "series", "not an array of numbers"),
        (([1, "a"],), {}, "series", "[1]: 'a' is not of type number"),
        (([1],), {"window": 0}, "window", "less than the minimum of 1"),
        (([1],), {"window": 2.5}, "window", "2.5 is not of type integer"),
        (([1],), {"window": True}, "window", "True is not of type integer"),
        (([1],), {"method": "median"}, "method", "'median' is not one of"),
        (([1],), {"series": [1]}, "series", "twice"),
        (([1],), {"size": 1}, "size", "has no argument 'size'"),
        (([1], 1, "moving", 4), {}, None, "takes 3 arguments"),
    ],
)
def test_arguments_that_do_not_fit_are_named(
    args: tuple, kwargs: dict, argument: str | None, text: str
) -> None:
    with pytest.raises(InvalidArguments) as caught:
        SMOOTH.check(args, kwargs)
    assert text in str(caught.value)
    assert caught.value.argument == argument
    assert caught.value.job == "signal.smooth"


def test_a_job_without_arguments_in_the_file_takes_anything() -> None:
    Contract("any", "jobs", "x").check((object(),), {"y": 1})


def test_a_job_with_no_arguments_takes_none() -> None:
    with pytest.raises(InvalidArguments, match="takes 0 arguments"):
        Contract("none", "jobs", "x", arguments={}).check((1,), {})
