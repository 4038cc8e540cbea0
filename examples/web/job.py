"""The job that the web applications hand over: a curve and its band, telling how far it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from rabbitry import Cancelled, current_job, job
from web import lowess


@job("web.lowess")
def curve_with_band(
    series: np.ndarray[Any, Any], *, window: int = 53, passes: int = 2, resamples: int = 1000
) -> dict[str, Any]:
    """Smooth a series with a band around it; see `web.lowess.curve_with_band`.

    Args:
        series: shape (n,), evenly spaced, NaN or None where a sample is missing.
        window: samples that each line goes through.
        passes: how often samples far off the curve lose weight.
        resamples: curves that the band is made of.

    Returns:
        ``smoothed``, ``low`` and ``high``, shape (n,) each.

    Raises:
        ValueError: the series or one of the arguments cannot be used.
        Cancelled: nobody wants the result any more.
    """
    current = current_job()

    def tell(done: int, partial: dict[str, lowess.Values]) -> None:
        if current is None:
            return
        if current.cancelled:
            raise Cancelled(f"given up after {done} of {resamples} curves")
        text = f"{done} of {resamples} curves" if done else "the curve is there, now its band"
        current.progress(done / resamples, text=text, partial=partial or None)

    return lowess.curve_with_band(
        series, window=window, passes=passes, resamples=resamples, tell=tell
    )
