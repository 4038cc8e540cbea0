"""A series in a few numbers."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from consumers.jobs.series import Floats, as_series, normalised


class Summary(TypedDict):
    """What `summary` returns; None stands where no sample is present.

    Attributes:
        length: samples in all, present and missing.
        count: samples present.
        missing: samples missing.
        first, last: positions of the first and last sample present, counted from 0.
        mean, std: in the units of the series; the standard deviation is the population's.
        min, lower_quartile, median, upper_quartile, max: in the units of the series; between
            two samples a quartile is interpolated linearly.
    """

    length: int
    count: int
    missing: int
    first: int | None
    last: int | None
    mean: float | None
    std: float | None
    min: float | None
    lower_quartile: float | None
    median: float | None
    upper_quartile: float | None
    max: float | None


def summary(series: Floats) -> Summary:
    """Describe a series by its length, gaps, mean, spread and quartiles.

    Args:
        series: shape (n,), real numbers, NaN where a sample is missing.

    Raises:
        ValueError: the series is empty, not one-dimensional, not of real numbers, or infinite.
    """
    values = as_series(series)
    places = np.flatnonzero(~np.isnan(values))
    scaled, exponent = normalised(values[places] if places.size else values)

    def restored(number: float) -> float | None:
        return float(np.ldexp(number, exponent))

    if places.size == 0:
        mean = std = least = lower = median = upper = most = None
    else:
        mean, std = restored(scaled.mean()), restored(scaled.std())
        least, lower, median, upper, most = map(restored, np.quantile(scaled, np.arange(5) / 4))
    return {
        "length": values.size,
        "count": places.size,
        "missing": values.size - places.size,
        "first": int(places[0]) if places.size else None,
        "last": int(places[-1]) if places.size else None,
        "mean": mean,
        "std": std,
        "min": least,
        "lower_quartile": lower,
        "median": median,
        "upper_quartile": upper,
        "max": most,
    }
