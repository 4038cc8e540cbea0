"""signal.spectrum and signal.summary: known answers, the real series, and bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from consumers.jobs.periodogram import spectrum
from consumers.jobs.statistics import summary

DATA = Path(__file__).parents[2] / "examples" / "data"
RNG = np.random.default_rng(1978)


def column(file, name):
    with (DATA / file).open(newline="") as lines:
        return np.array([float(row[name] or "nan") for row in csv.DictReader(lines)])


def test_sunspots_come_back_after_about_eleven_years():
    assert 10 < spectrum(column("sunspots.csv", "SUNACTIVITY"))["strongest_period"] < 11.5


@pytest.mark.parametrize("detrend", [True, False])
def test_carbon_dioxide_comes_back_after_a_year_of_weeks(detrend):
    co2 = column("co2.csv", "co2")
    assert np.isnan(co2).sum() == 59
    assert spectrum(co2, detrend=detrend)["strongest_period"] == pytest.approx(52.2, abs=0.5)


@pytest.mark.parametrize("period", [2.5, 7, 11.3, 52.2, 100])
@pytest.mark.parametrize("size", [500, 501, 997])
def test_a_sine_has_its_own_period(period, size):
    t = np.arange(size)
    series = 3 * np.sin(2 * np.pi * t / period + 0.7) + 5 + 0.01 * t
    assert spectrum(series)["strongest_period"] == pytest.approx(period, rel=2e-3)


def test_gaps_do_not_move_the_period():
    t = np.arange(1000)
    series = np.sin(2 * np.pi * t / 37)
    series[RNG.random(t.size) < 0.2] = np.nan
    series[:9] = series[-20:] = np.nan
    found = spectrum(series)
    assert found["strongest_period"] == pytest.approx(37, rel=2e-3)
    present = np.flatnonzero(~np.isnan(series))
    assert found["frequencies"].size == (present[-1] - present[0] + 1) // 2 + 1


def test_the_fastest_period_there_is_has_two_samples():
    assert spectrum([1, -1] * 20)["strongest_period"] == 2.0


@pytest.mark.parametrize("size", [4, 5, 64, 65])
def test_frequencies_run_from_zero_to_one_half_and_power_adds_up_to_the_variance(size):
    series = RNG.normal(size=size)
    found = spectrum(series, detrend=False)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    assert_allclose(found["frequencies"], np.arange(size // 2 + 1) / size)
    assert found["power"].shape == found["frequencies"].shape
    variance = np.sum(np.square((series - series.mean()) * window)) / np.sum(window**2)
    assert found["power"].sum() / size == pytest.approx(variance)


def test_white_noise_has_the_same_power_everywhere():
    power = spectrum(RNG.normal(scale=2, size=100_000))["power"]
    assert_allclose([half.mean() for half in np.split(power[1:], 2)], 8, rtol=0.02)


@settings(deadline=None)
@given(
    st.lists(st.integers(-1000, 1000), min_size=5, max_size=60).filter(lambda x: len(set(x)) > 2),
    st.integers(-6, 6),
    st.integers(-1000, 1000),
)
def test_scale_and_shift_leave_the_period_alone(values, exponent, shift):
    series = np.array(values, dtype=float)
    try:
        found = spectrum(series)
    except ValueError:
        return  # a straight line
    other = spectrum(np.ldexp(series + shift, exponent))
    assert 2 <= found["strongest_period"] <= series.size + 1
    power = np.ldexp(found["power"], 2 * exponent)
    assert_allclose(other["power"], power, atol=1e-8 * power.max())


@pytest.mark.parametrize(
    ("series", "options", "words"),
    [
        ([], {}, "empty"),
        ([1, 2, 3], {}, "at least 4 samples, the series has 3 of 3"),
        ([1, np.nan, 2, 3, np.nan], {}, "3 of 5 present"),
        ([np.nan] * 9, {}, "0 of 9 present"),
        ([7.3] * 50, {}, "constant"),
        ([7.3] * 50, {"detrend": False}, "constant"),
        (np.arange(50) * 0.1 + 1e9, {}, "straight line"),
        (np.ones((4, 4)), {}, "one dimension"),
        ([1, 2, 3, np.inf, 5], {}, "sample 3 of the series is infinite"),
        ([1e308, -1e308] * 5, {}, "power overflows"),
        (np.array([1j, 2, 3, 4]), {}, "complex"),
    ],
)
def test_a_series_without_a_spectrum_is_refused_in_a_sentence(series, options, words):
    with pytest.raises(ValueError, match=words):
        spectrum(series, **options)


def test_a_summary_is_plain_numbers():
    found = summary(np.array([np.nan, 1, 2, 3, 4, np.nan, 10, np.nan], dtype=np.float32))
    assert found == {
        "length": 8,
        "count": 5,
        "missing": 3,
        "first": 1,
        "last": 6,
        "mean": 4,
        "std": pytest.approx(np.std([1, 2, 3, 4, 10])),
        "min": 1,
        "lower_quartile": 2,
        "median": 3,
        "upper_quartile": 4,
        "max": 10,
    }
    assert {type(value) for value in found.values()} == {int, float}
    json.dumps(found, allow_nan=False)


def test_a_summary_of_nothing_but_gaps_says_so():
    found = summary([np.nan, None, np.nan])
    assert (found["length"], found["count"], found["missing"]) == (3, 0, 3)
    assert found["mean"] is found["first"] is found["median"] is None


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
def test_a_summary_is_ordered_whatever_the_size_of_its_numbers(values):
    found = summary(values)
    order = [found[key] for key in ("min", "lower_quartile", "median", "upper_quartile", "max")]
    assert order == sorted(order)
    assert found["min"] <= min(values) or found["min"] == pytest.approx(min(values))
    assert np.isfinite(found["std"])


def test_a_summary_needs_a_sample():
    with pytest.raises(ValueError, match="empty"):
        summary([])
