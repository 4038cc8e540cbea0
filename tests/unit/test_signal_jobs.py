"""The jobs that come with rabbitry are plain functions too, and take what their contracts say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from broker.errors import InvalidArguments
from consumers.jobs import demo, signal
from consumers.jobs.periodogram import spectrum
from consumers.jobs.smoothing import smooth
from consumers.jobs.statistics import summary


def test_the_tasks_run_as_functions():
    series = np.sin(np.arange(100) / 3)
    assert_array_equal(
        signal.smooth(series, window=5, method="savitzky_golay", order=3),
        smooth(series, window=5, method="savitzky_golay", order=3),
    )
    assert_array_equal(signal.spectrum(series)["power"], spectrum(series)["power"])
    assert signal.summary(series) == summary(series)


def test_a_list_with_gaps_becomes_a_series():
    (series,), _ = signal.smooth.takes.bind(([1, None, 3],), {})
    assert_array_equal(series, [1, np.nan, 3])


@pytest.mark.parametrize(
    ("task", "kwargs", "argument"),
    [
        (signal.smooth, {"series": "text"}, "series"),
        (signal.smooth, {"series": [1, 2], "window": "wide"}, "window"),
        (signal.smooth, {"series": [1, 2], "method": "median"}, "method"),
        (signal.spectrum, {"series": [1, 2], "detrend": 7}, "detrend"),
        (demo.add, {"a": 1, "b": "two"}, "b"),
        (demo.sleep, {"seconds": "long"}, "seconds"),
    ],
)
def test_an_argument_of_the_wrong_type_is_named(task, kwargs, argument):
    with pytest.raises(InvalidArguments, match=f"argument {argument!r}"):
        task.takes.bind((), kwargs)


def test_the_demonstrations_do_what_they_say():
    assert demo.echo() is None
    assert demo.echo({"a": [1]}) == {"a": [1]}
    assert demo.add(1, 2) == 3
    assert demo.sleep(0.0) >= 0
    with pytest.raises(demo.DemoFailure, match="as asked"):
        demo.fail("as asked")
    beat = demo.heartbeat()
    assert abs(datetime.fromisoformat(beat["time"]) - datetime.now(UTC)) < timedelta(seconds=5)
    assert isinstance(beat["pid"], int)
    assert beat["host"]


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 1e300])
def test_a_sleep_has_a_length(seconds):
    with pytest.raises(ValueError, match="from 0 to 86400"):
        demo.sleep(seconds)


def test_numbers_stay_whole_when_they_are_added():
    (a, b), _ = demo.add.takes.bind((1, 2), {})
    assert (type(a), type(b)) == (int, int)
