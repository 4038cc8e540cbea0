"""What every job on a series begins with: one dimension, float64, NaN where a sample is missing."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def as_series(values: ArrayLike) -> Floats:
    """Return the samples as a new float64 array of shape (n,).

    Args:
        values: real numbers, booleans (0 and 1), or objects that are numbers; None and NaN
            stand for a missing sample. At least one sample.

    Raises:
        ValueError: not one-dimensional, empty, not of real numbers, or with an infinite sample.
    """
    array: NDArray[Any] = np.asarray(values)
    if isinstance(values, np.ma.MaskedArray):
        # A masked sample becomes None, since integers have no NaN.
        array = np.array(values.tolist(), dtype=object)
    if array.ndim != 1:
        raise ValueError(f"the series must have one dimension, not the shape {array.shape}")
    if array.size == 0:
        raise ValueError("the series is empty; it needs at least one sample")
    if array.dtype.kind == "O":
        array = _from_objects(array)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"the series must hold real numbers, not values of dtype {array.dtype}")
    with np.errstate(over="ignore"):  # a longdouble beyond float64 becomes inf, refused below
        series = array.astype(np.float64)
    infinite = np.isinf(series)
    if infinite.any():
        raise ValueError(
            f"sample {int(infinite.argmax())} of the series is infinite;"
            " put NaN where there is no measurement"
        )
    return series


def as_count(value: Any, *, name: str, least: int) -> int:
    """Return an integer argument as an int; ValueError unless it is one, and at least `least`."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = index(value)
    except TypeError:
        raise ValueError(f"{name} must be an integer, not {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    return number


def normalised(series: Floats) -> tuple[Floats, int]:
    """Scale a series by a power of two into [-1, 1], so that no sum or square overflows.

    Returns:
        The scaled samples and the exponent: ``numpy.ldexp(scaled, exponent)`` is the series,
        exactly but for samples 2^1000 times smaller than the largest.
    """
    peak = np.nanmax(np.abs(series)) if not np.isnan(series).all() else 0.0
    exponent = int(np.frexp(peak)[1])
    return np.ldexp(series, -exponent), exponent


def _from_objects(array: NDArray[Any]) -> Floats:
    numbers = np.empty(array.shape)
    for position, value in enumerate(array):
        if value is None:
            numbers[position] = np.nan
            continue
        try:
            if isinstance(value, str | bytes | complex):
                raise TypeError
            numbers[position] = float(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(
                f"sample {position} of the series is {value!r}, which is not a real number"
            ) from None
    return numbers
