"""Smoothing a series with gaps: moving average, Savitzky-Golay, Gaussian kernel.

All three weigh the samples in a window around each one, and skip those that are missing.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from consumers.jobs.series import Floats, Mask, as_count, as_series, normalised

Method = Literal["moving", "savitzky_golay", "gaussian"]
METHODS: tuple[Method, ...] = ("moving", "savitzky_golay", "gaussian")

# A Gaussian's window reaches three standard deviations to each side.
WINDOW_PER_SIGMA = 6.0
# Beyond this length a convolution by FFT is faster than numpy's direct one.
DIRECT_TAPS = 512
# Values of one block of windows with gaps: 8 MiB, so that memory stays bounded.
BLOCK_VALUES = 1 << 20


def smooth(
    series: Floats, *, window: int = 13, method: Method = "moving", order: int = 2
) -> Floats:
    """Smooth a series; samples that are missing are filled from their neighbours.

    ``moving`` is the centred mean of the samples present in the window; an even window gives
    half weight to its two outermost samples, so that it stays centred. ``gaussian`` weighs
    them by a Gaussian of standard deviation window / 6 samples. For both the window shrinks at
    the ends of the series. ``savitzky_golay`` takes the value of the polynomial of this order
    that fits the samples present in the window by least squares; at the ends it is the first
    or last whole window. Where fewer than order + 1 samples are present the order is lowered;
    where a missing sample has neighbours on one side only, their mean is taken, since a
    polynomial would run away.

    Args:
        series: shape (n,), real numbers, NaN where a sample is missing.
        window: full width in samples, at least 1; for ``savitzky_golay`` odd and at most n.
        method: ``moving``, ``savitzky_golay`` or ``gaussian``.
        order: degree of the polynomial, from 0 to window - 1; only for ``savitzky_golay``.

    Returns:
        Shape (n,), float64, in the units of the series; NaN only where the window is empty.

    Raises:
        ValueError: the series or one of the arguments cannot be used.

    Source: A. Savitzky, M. J. E. Golay, Analytical Chemistry 36 (1964) 1627; the ends as in
    P. A. Gorry, Analytical Chemistry 62 (1990) 570.
    """
    values = as_series(series)
    window = as_count(window, name="window", least=1)
    scaled, exponent = normalised(values)
    present = ~np.isnan(scaled)
    filled = np.where(present, scaled, 0.0)
    if method == "moving":
        smoothed = _moving(filled, present, window=window)
    elif method == "gaussian":
        smoothed = _gaussian(filled, present, window=window)
    elif method == "savitzky_golay":
        order = as_count(order, name="order", least=0)
        _check_polynomial(window, order, samples=values.size)
        smoothed = _savitzky_golay(filled, present, window=window, order=order)
    else:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    return np.ldexp(smoothed, exponent)


def _check_polynomial(window: int, order: int, *, samples: int) -> None:
    if window % 2 == 0:
        raise ValueError(
            f"window must be odd for savitzky_golay, not {window};"
            f" take {window - 1} or {window + 1}"
        )
    if window > samples:
        raise ValueError(
            f"window must be at most the length of the series, {samples}, for savitzky_golay,"
            f" not {window}"
        )
    if order >= window:
        raise ValueError(f"order must be less than the window, {window}, not {order}")


# -- weighted means -------------------------------------------------------------------


def _moving(filled: Floats, present: Mask, *, window: int) -> Floats:
    reach = min(window // 2, filled.size)
    if window % 2 or reach < window // 2:
        # Odd, or so wide that every window holds the whole series.
        total = window_sums(filled, reach=reach)
        weight = window_sums(present.astype(np.float64), reach=reach)
    else:
        total, weight = (
            window_sums(part, reach=reach - 1) + _both_ends(part, reach=reach) / 2
            for part in (filled, present.astype(np.float64))
        )
    return _quotient(total, weight)


def _gaussian(filled: Floats, present: Mask, *, window: int) -> Floats:
    reach = min(window // 2, filled.size - 1)
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offsets * (WINDOW_PER_SIGMA / window)) ** 2)
    total = _convolve(np.pad(filled, reach), kernel)
    weight = _convolve(np.pad(present.astype(np.float64), reach), kernel)
    # The FFT leaves rounding where there is nothing: an exact count says what is empty.
    empty = window_sums(present.astype(np.float64), reach=reach) == 0
    weight[empty] = 0.0
    return _quotient(total, weight)


def _quotient(total: Floats, weight: Floats) -> Floats:
    means = np.full(total.shape, np.nan)
    np.divide(total, weight, out=means, where=weight > 0)
    return means


def window_sums(values: Floats, *, reach: int) -> Floats:
    """Return the sum over [i - reach, i + reach] for each i, in linear time.

    Sums run forwards and backwards within blocks of one window's length, and a window is the
    tail of one block and the head of the next: no differences, so that a large sample spoils
    no window but its own (M. van Herk, Pattern Recognition Letters 13 (1992) 517).
    """
    width = 2 * reach + 1
    blocks = -(-(values.size + 2 * reach) // width)
    padded = np.zeros(blocks * width)
    padded[reach : reach + values.size] = values
    rows = padded.reshape(blocks, width)
    heads = np.cumsum(rows, axis=1).ravel()
    tails = np.cumsum(rows[:, ::-1], axis=1)[:, ::-1].copy()
    tails[:, 0] = 0.0  # a window that begins with a block is that block's head alone
    starts = np.arange(values.size)
    sums: Floats = tails.ravel()[starts] + heads[starts + width - 1]
    return sums


def _both_ends(values: Floats, *, reach: int) -> Floats:
    padded = np.pad(values, reach)
    ends: Floats = padded[: values.size] + padded[2 * reach :]
    return ends


def _convolve(padded: Floats, kernel: Floats) -> Floats:
    """Return the weighted sum of each whole window; kernels here are symmetric."""
    if kernel.size <= DIRECT_TAPS:
        return np.convolve(padded, kernel, mode="valid")
    size = 1 << (padded.size - 1).bit_length()
    product = np.fft.rfft(padded, size) * np.fft.rfft(kernel, size)
    whole: Floats = np.fft.irfft(product, size)[kernel.size - 1 : padded.size]
    return whole


# -- polynomials ----------------------------------------------------------------------


def _savitzky_golay(filled: Floats, present: Mask, *, window: int, order: int) -> Floats:
    reach = window // 2
    smoothed = np.empty(filled.size)
    weights = _fit_weights(np.ones((1, window), dtype=bool), at=np.array([reach]), order=order)
    smoothed[reach : filled.size - reach] = _convolve(filled, weights[0])

    # What is left are windows with gaps, and the ends: they are fitted one by one, in blocks.
    whole = sliding_window_view(present, window).all(axis=1)
    left = np.ones(filled.size, dtype=bool)
    left[reach : filled.size - reach] = ~whole
    positions = np.flatnonzero(left)
    starts = np.clip(positions - reach, 0, filled.size - window)
    samples = sliding_window_view(filled, window)
    masks = sliding_window_view(present, window)
    step = max(1, BLOCK_VALUES // (window * (order + 1)))
    for first in range(0, positions.size, step):
        where = positions[first : first + step]
        start = starts[first : first + step]
        fit = _fit_weights(masks[start], at=where - start, order=order)
        smoothed[where] = np.einsum("bw,bw->b", fit, samples[start])
        smoothed[where[~masks[start].any(axis=1)]] = np.nan
    return smoothed


def _fit_weights(
    present: Mask, *, at: np.ndarray[tuple[int], np.dtype[np.intp]], order: int
) -> Floats:
    """Return the weights that the samples of each window have in its fit.

    The polynomials are made orthonormal over the samples that are present, degree by degree
    (Arnoldi's process, twice for accuracy): unlike normal equations it keeps its digits, and
    a degree that the samples do not determine shows as a remainder of zero and is left out.

    Args:
        present: shape (windows, width).
        at: shape (windows,), the position in the window where each polynomial is evaluated.
        order: the degree.
    """
    windows, width = present.shape
    places = np.linspace(-1.0, 1.0, width) if width > 1 else np.zeros(1)
    rows = np.arange(windows)
    counts = present.sum(axis=1)
    degrees = np.minimum(order, counts - 1)
    before = np.cumsum(present, axis=1)[rows, at]
    one_sided = ~present[rows, at] & ((before == 0) | (before == counts))
    degrees[one_sided] = np.minimum(degrees[one_sided], 0)

    # Each polynomial is followed over the whole window, but measured where samples are present.
    basis = np.zeros((windows, order + 1, width))
    current = np.ones((windows, width))
    weights = np.zeros((windows, width))
    for degree in range(order + 1):
        known = basis[:, :degree]
        for _ in range(2):
            shares = np.einsum("bdw,bw->bd", known, current * present)
            current = current - np.einsum("bd,bdw->bw", shares, known)
        size = np.sqrt(np.sum(np.square(current) * present, axis=1, keepdims=True))
        used = (degrees >= degree)[:, None]
        polynomial = np.divide(current, size, out=np.zeros_like(current), where=used & (size > 0))
        basis[:, degree] = polynomial
        weights += polynomial[rows, at][:, None] * polynomial
        current = places * polynomial
    return weights * present
