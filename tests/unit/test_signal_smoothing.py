"""signal.smooth: known answers, what any smoother keeps, and gaps against a plain reference."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from consumers.jobs.smoothing import METHODS, smooth, window_sums

RNG = np.random.default_rng(1964)

samples = st.floats(-1e6, 1e6) | st.just(float("nan"))
series_with_gaps = st.lists(samples, min_size=1, max_size=60).map(np.array)
whole_series = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60).map(np.array)
methods = st.sampled_from(METHODS)


def fitting_window(series, window, method):
    """The window as it is, or cut to an odd one that Savitzky-Golay takes."""
    if method != "savitzky_golay":
        return window
    window = min(window, series.size)
    return window if window % 2 else window - 1


def reference(series, window, method, order):
    """One sample after the other, by numpy.polyfit and weighted means."""
    reach, result = window // 2, np.full(series.size, np.nan)
    for i in range(series.size):
        if method == "savitzky_golay":
            start = min(max(i - reach, 0), series.size - window)
            offsets = np.arange(start, start + window) - i
        else:
            offsets = np.arange(max(-reach, -i), min(reach, series.size - 1 - i) + 1)
        values = series[i + offsets]
        offsets, values = offsets[~np.isnan(values)], values[~np.isnan(values)]
        if not values.size:
            continue
        if method == "gaussian":
            weights = np.exp(-0.5 * (offsets / (window / 6)) ** 2)
        elif method == "moving" and window % 2 == 0:
            weights = np.where(np.abs(offsets) == reach, 0.5, 1.0)
        else:
            weights = np.ones(values.size)
        degree = min(order, values.size - 1) if method == "savitzky_golay" else 0
        if (offsets > 0).all() or (offsets < 0).all():
            degree = 0
        result[i] = np.polyfit(offsets / window, values, degree, w=np.sqrt(weights))[-1]
    return result


def test_a_moving_average_is_the_mean_of_the_window_and_shrinks_at_the_ends():
    assert_allclose(smooth([1, 2, 6, 3, 8], window=3), [1.5, 3, 11 / 3, 17 / 3, 5.5])


def test_an_even_window_gives_half_weight_to_its_ends():
    smoothed = smooth(np.arange(48) % 12, window=12)
    assert_allclose(smoothed[6:-6], 5.5)
    assert_allclose(smooth([4.0, 0, 0, 0, 8], window=4)[2], (2 + 0 + 0 + 0 + 4) / 4)


def test_a_moving_average_skips_gaps_and_is_missing_only_where_the_window_is_empty():
    nan = np.nan
    smoothed = smooth([1, nan, 3, nan, nan, nan, 7], window=3)
    assert_array_equal(smoothed, [1, 2, 3, 3, nan, 7, 7])


def test_a_gaussian_of_one_sample_has_the_width_that_is_documented():
    impulse = np.zeros(601)
    impulse[300] = 1.0
    smoothed = smooth(impulse, window=120, method="gaussian")
    offsets = np.arange(601) - 300
    assert np.sqrt(smoothed @ offsets**2) == pytest.approx(20, rel=0.02)
    assert smoothed.sum() == pytest.approx(1)


@pytest.mark.parametrize("order", [0, 1, 2, 3, 5, 8])
@pytest.mark.parametrize("gaps", [False, True])
def test_savitzky_golay_keeps_a_polynomial_of_its_order_to_the_ends(order, gaps):
    t = np.linspace(-1, 1, 200)
    polynomial = np.polynomial.Polynomial(RNG.normal(size=order + 1))(t)
    series = polynomial.copy()
    if gaps:
        series[[5, 6, 50, 70, 71, 72, 190]] = np.nan
    assert_allclose(
        smooth(series, window=31, method="savitzky_golay", order=order), polynomial, atol=1e-10
    )


@pytest.mark.parametrize(("window", "order"), [(5, 2), (13, 2), (13, 3), (51, 4), (1, 0), (9, 8)])
def test_savitzky_golay_on_whole_windows_is_the_fit_of_numpy_polyfit(window, order):
    series = RNG.normal(size=120) + 300
    smoothed = smooth(series, window=window, method="savitzky_golay", order=order)
    assert_allclose(smoothed, reference(series, window, "savitzky_golay", order), atol=1e-10)


def test_savitzky_golay_has_the_published_weights():
    # Savitzky & Golay 1964, table I: quadratic, 5 points: (-3, 12, 17, 12, -3) / 35.
    impulse = np.zeros(11)
    impulse[5] = 35.0
    smoothed = smooth(impulse, window=5, method="savitzky_golay", order=2)
    assert_allclose(smoothed[3:8], [-3, 12, 17, 12, -3], atol=1e-12)


def test_savitzky_golay_of_a_high_order_keeps_its_digits():
    t = np.linspace(-1, 1, 301)
    series = np.cos(9 * t)
    smoothed = smooth(series, window=201, method="savitzky_golay", order=40)
    assert_allclose(smoothed, series, atol=1e-9)


def test_a_long_gap_is_not_extrapolated_by_a_polynomial():
    series = np.r_[np.arange(20.0) ** 2, np.full(30, np.nan), np.arange(20.0) ** 2]
    smoothed = smooth(series, window=13, method="savitzky_golay", order=2)
    present = series[~np.isnan(series)]
    inside = smoothed[20:50]
    assert np.isnan(inside[6:-6]).all()
    assert not np.isnan(inside[:6]).any()
    assert np.nanmin(inside) >= present.min()
    assert np.nanmax(inside) <= present.max()


@settings(deadline=None)
@given(series_with_gaps, st.integers(1, 40), methods, st.integers(0, 4))
def test_gaps_and_ends_agree_with_a_fit_of_each_sample(series, window, method, order):
    window = fitting_window(series, window, method)
    order = min(order, window - 1)
    smoothed = smooth(series, window=window, method=method, order=order)
    size = np.nanmax(np.abs(np.r_[series, 1.0]))
    # A few samples far from the place of the fit amplify the reference's own rounding.
    assert_allclose(smoothed, reference(series, window, method, order), rtol=1e-7, atol=1e-7 * size)


@given(st.floats(-1e300, 1e300), st.integers(1, 50), st.integers(1, 60), methods)
def test_a_constant_stays_what_it_is(value, size, window, method):
    series = np.full(size, value)
    window = fitting_window(series, window, method)
    order = min(2, window - 1)
    assert_allclose(smooth(series, window=window, method=method, order=order), series, rtol=1e-12)


@settings(deadline=None)
@given(
    whole_series, st.integers(1, 30), methods, st.floats(-1e3, 1e3), st.floats(-1e6, 1e6), st.data()
)
def test_smoothing_follows_scale_shift_and_reversal(series, window, method, scale, shift, data):
    gaps = data.draw(st.sets(st.integers(0, series.size - 1), max_size=series.size))
    series[list(gaps)] = np.nan
    window = fitting_window(series, window, method)
    options = {"window": window, "method": method, "order": min(2, window - 1)}
    smoothed = smooth(series, **options)
    tolerance = 1e-9 * (abs(shift) + 1e6 * max(1, abs(scale)))
    assert_allclose(
        smooth(scale * series + shift, **options), scale * smoothed + shift, atol=tolerance
    )
    assert_allclose(smooth(series[::-1], **options)[::-1], smoothed, atol=tolerance)


@given(whole_series, st.integers(0, 70))
def test_window_sums_are_those_of_slices(series, reach):
    plain = [series[max(0, i - reach) : i + reach + 1].sum() for i in range(series.size)]
    assert_allclose(window_sums(series, reach=reach), plain, atol=1e-7)


def test_a_large_sample_spoils_no_window_but_its_own():
    series = np.ones(200)
    series[100] = 1e17
    smoothed = smooth(series, window=5)
    assert_array_equal(np.delete(smoothed, np.arange(98, 103)), 1.0)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_missing_altogether_stays_missing(method):
    assert np.isnan(smooth(np.full(20, np.nan), window=5, method=method)).all()


@pytest.mark.parametrize("method", ["moving", "gaussian"])
def test_a_window_wider_than_the_series_takes_all_of_it(method):
    for window in (7, 8, 1001, 10**15):
        assert np.isfinite(smooth([1, 2, 3], window=window, method=method)).all()
    assert_allclose(smooth([1, 2, 3], window=10**15, method=method), 2)


@pytest.mark.parametrize(
    "series",
    [
        [1, 2, 3, 4],
        (True, False, True, True),
        np.array([1, 2, 3], dtype=np.uint8),
        np.array([1.5, 2, 3], dtype=">f4"),
        np.array([1, None, 3.5, float("nan")], dtype=object),
        np.ma.array([1, 2, 3], mask=[False, True, False]),
    ],
)
def test_any_real_numbers_will_do(series):
    smoothed = smooth(series, window=3)
    assert smoothed.dtype == np.float64
    assert smoothed.shape == (len(series),)


def test_the_series_itself_is_left_alone():
    series = np.array([1.0, np.nan, 3.0])
    series.flags.writeable = False
    smooth(series, window=3)
    assert_array_equal(series, [1.0, np.nan, 3.0])


@pytest.mark.parametrize(
    ("series", "options", "words"),
    [
        ([], {}, "empty"),
        ([[1, 2], [3, 4]], {}, r"one dimension, not the shape \(2, 2\)"),
        (5.0, {}, "one dimension"),
        ([1, np.inf], {}, "sample 1 of the series is infinite"),
        ([1 + 2j, 3], {}, "complex"),
        (["a", "b"], {}, "real numbers"),
        (np.array([1, "x"], dtype=object), {}, "sample 1 of the series is 'x'"),
        (np.array(["2001-01-01"], dtype="M8[D]"), {}, "datetime64"),
        ([1, 2, 3], {"window": 0}, "window must be at least 1, not 0"),
        ([1, 2, 3], {"window": -3}, "at least 1"),
        ([1, 2, 3], {"window": 2.5}, "window must be an integer, not 2.5"),
        ([1, 2, 3], {"window": True}, "integer"),
        ([1, 2, 3], {"window": "3"}, "integer"),
        ([1, 2, 3], {"method": "median"}, "moving, savitzky_golay, gaussian, not 'median'"),
        ([1, 2, 3], {"method": "savitzky_golay", "window": 2}, "odd .* take 1 or 3"),
        ([1, 2, 3], {"method": "savitzky_golay", "window": 5}, "length of the series, 3"),
        ([1, 2, 3], {"method": "savitzky_golay", "window": 3, "order": 3}, "order must be less"),
        ([1, 2, 3], {"method": "savitzky_golay", "window": 3, "order": -1}, "order .* at least 0"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(series, options, words):
    with pytest.raises(ValueError, match=words):
        smooth(series, **{"window": 3, **options})


def test_extreme_values_do_not_overflow():
    series = np.array([1.7e308, 1.7e308, -1.7e308, 1.7e308, 5e-324])
    for method in METHODS:
        smoothed = smooth(series, window=5, method=method, order=0)
        assert np.isfinite(smoothed).all()
    assert_allclose(smooth(np.full(9, 5e-324), window=3), 5e-324)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("window", [13, 2001])
def test_a_million_samples_take_about_a_second(method, window):
    series = RNG.normal(size=1_000_000)
    started = time.process_time()
    smooth(series, window=window, method=method)
    assert time.process_time() - started < 3
