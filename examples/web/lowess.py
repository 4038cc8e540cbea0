"""Robust local regression with a band: seconds of arithmetic that can tell how far it is.

The curve is Cleveland's (1979): at each place a line through its nearest samples, weighted by
distance, and again with less weight for samples far off the curve before. The band is what the
curve of resampled series covers, by the wild bootstrap: each residual keeps its place and takes a
random sign, so gaps and changing noise stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Values = NDArray[np.float64]
# Told after the curve and after each resampled one: how many there are, and what they come to.
Tell = Callable[[int, dict[str, Values]], None]

# Between them lie nine of ten resampled curves.
LOW, HIGH = 5, 95
# The band is drawn so often on the way.
BANDS = 8


def curve_with_band(
    series: Values, *, window: int, passes: int, resamples: int, tell: Tell = lambda _, __: None
) -> dict[str, Values]:
    """Return the curve of a series and the band around it; the same for the same arguments.

    Args:
        series: shape (n,), evenly spaced, NaN where a sample is missing.
        window: samples that each line goes through, from 3 to those that are there.
        passes: how often samples far off the curve lose weight.
        resamples: curves that the band is made of.
        tell: told how many are done; with the curve first, and with the band now and then.

    Returns:
        ``smoothed``, ``low`` and ``high``, shape (n,) each, in the units of the series.

    Raises:
        ValueError: an argument is out of its range, or the series is not one.
    """
    series = np.asarray(series, dtype=np.float64)
    if series.ndim != 1:
        raise ValueError(f"a series has one dimension, not {series.ndim}")
    there = np.flatnonzero(np.isfinite(series))
    if not 3 <= window <= len(there):
        raise ValueError(
            f"the window must be from 3 to the {len(there)} samples that are there, not {window}"
        )
    if passes < 0 or resamples < 1:
        raise ValueError("at least one resampled curve is needed, and no negative passes")
    places = np.arange(len(series), dtype=np.float64)
    neighbours = Neighbours(places, there.astype(np.float64), window)
    samples = series[there]
    smoothed = robust_curve(neighbours, samples, there, passes)
    tell(0, {"smoothed": smoothed})
    residuals = samples - smoothed[there]
    random = np.random.default_rng(0)
    curves = np.empty((resamples, len(series)))
    for done in range(1, resamples + 1):
        signs = random.choice((-1.0, 1.0), size=len(there))
        again = smoothed[there] + residuals * signs
        curves[done - 1] = robust_curve(neighbours, again, there, passes)
        now = done < resamples and done % -(-resamples // BANDS) == 0
        tell(done, band_of(curves[:done]) if now else {})
    return {"smoothed": smoothed, **band_of(curves)}


def band_of(curves: Values) -> dict[str, Values]:
    """Return what nine of ten curves lie between."""
    low, high = np.percentile(curves, (LOW, HIGH), axis=0)
    return {"low": low, "high": high}


class Neighbours:
    """The samples nearest to each place and their weights by distance; the same for every curve.

    Args:
        places: where the curve is wanted, shape (n,).
        there: where samples are, ascending, shape (m,).
        window: how many belong to each place.

    Attributes:
        first: of each place the first of its samples, shape (n,).
        offsets: of its samples from the place, shape (n, window).
        weights: of them, tricube, shape (n, window).
    """

    def __init__(self, places: Values, there: Values, window: int) -> None:
        # A run of samples gives way to the next where the one it loses is as far as the one it
        # gains.
        edges = (there[:-window] + there[window:]) / 2
        self.window = window
        self.first = np.searchsorted(edges, places, side="left")
        self.offsets = sliding_window_view(there, window)[self.first] - places[:, None]
        reach = np.abs(self.offsets).max(axis=1, keepdims=True)
        # A little more than the farthest, so that it has some weight: three samples make a line.
        self.weights = (1 - (np.abs(self.offsets) / (reach * 1.001)) ** 3) ** 3

    def lines(self, samples: Values, robust: Values) -> Values:
        """Return the value at each place of the weighted line through its samples."""
        weights = self.weights * sliding_window_view(robust, self.window)[self.first]
        values = sliding_window_view(samples, self.window)[self.first]
        # Where every sample counts as an outlier there is only distance left to go by.
        weights = np.where(weights.sum(axis=1, keepdims=True) > 0, weights, self.weights)
        total = weights.sum(axis=1)
        middle = np.einsum("ij,ij->i", weights, self.offsets) / total
        mean = np.einsum("ij,ij->i", weights, values) / total
        away = self.offsets - middle[:, None]
        spread = np.einsum("ij,ij,ij->i", weights, away, away)
        both = np.einsum("ij,ij,ij->i", weights, away, values)
        slope = np.divide(both, spread, out=np.zeros_like(both), where=spread > 0)
        curve: Values = mean - slope * middle
        return curve


def robust_curve(
    neighbours: Neighbours, samples: Values, there: NDArray[np.intp], passes: int
) -> Values:
    """Return the curve after so many passes in which outliers lose weight."""
    robust: Values = np.ones_like(samples)
    curve = neighbours.lines(samples, robust)
    for _ in range(passes):
        residuals = samples - curve[there]
        scale = 6 * np.median(np.abs(residuals))
        if not scale > 0:
            break  # the curve goes through the samples
        robust = np.square(1 - np.square(np.clip(np.abs(residuals) / scale, 0, 1)))
        curve = neighbours.lines(samples, robust)
    return curve
