"""The jobs on series: signal.smooth, signal.spectrum, signal.summary.

The arithmetic stands in `smoothing`, `periodogram` and `statistics`, which know of no broker.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from consumers.job import Array, job
from consumers.jobs import periodogram, smoothing, statistics


@job("signal.smooth")
def smooth(
    series: Array, *, window: int = 13, method: smoothing.Method = "moving", order: int = 2
) -> NDArray[np.float64]:
    """Smooth a series with gaps; see `consumers.jobs.smoothing.smooth`.

    Args:
        series: shape (n,), evenly spaced, NaN or None where a sample is missing.
        window: full width in samples; odd and at most n for ``savitzky_golay``.
        method: ``moving``, ``savitzky_golay`` or ``gaussian``.
        order: degree of Savitzky-Golay's polynomial, less than the window.

    Returns:
        Shape (n,), float64, in the units of the series; NaN only where the window is empty.

    Raises:
        ValueError: the series or one of the arguments cannot be used.
    """
    return smoothing.smooth(series, window=window, method=method, order=order)


@job("signal.spectrum")
def spectrum(series: Array, *, detrend: bool = True) -> periodogram.Spectrum:
    """Estimate the power of a series by frequency; see `consumers.jobs.periodogram.spectrum`.

    Args:
        series: shape (n,), evenly spaced, NaN or None where a sample is missing.
        detrend: whether to subtract a straight line first, not only the mean.

    Returns:
        ``strongest_period`` in samples, ``frequencies`` in cycles per sample, ``power``.

    Raises:
        ValueError: the series cannot be used, is constant, or has fewer than four samples.
    """
    return periodogram.spectrum(series, detrend=detrend)


@job("signal.summary")
def summary(series: Array) -> statistics.Summary:
    """Describe a series in a few numbers; see `consumers.jobs.statistics.summary`.

    Args:
        series: shape (n,), NaN or None where a sample is missing.

    Raises:
        ValueError: the series is empty or not one of real numbers.
    """
    return statistics.summary(series)
