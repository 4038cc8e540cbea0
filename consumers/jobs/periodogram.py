"""The power of a series by frequency, and its strongest period."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from consumers.jobs.series import Floats, as_series, normalised

LEAST_SAMPLES = 4
# The strongest period is looked up in a spectrum at least this much finer than 1 / n.
OVERSAMPLING = 8
# What a line leaves of itself by rounding, relative to the largest sample.
ROUNDING = 1e-13


class Spectrum(TypedDict):
    """What `spectrum` returns.

    Attributes:
        strongest_period: in samples.
        frequencies: shape (n // 2 + 1,), in cycles per sample, from 0 to at most 0.5.
        power: shape (n // 2 + 1,), spectral density in (units of the series)^2 samples.
    """

    strongest_period: float
    frequencies: Floats
    power: Floats


def spectrum(series: Floats, *, detrend: bool = True) -> Spectrum:
    """Estimate the power spectrum of a series by a windowed periodogram.

    Missing samples at the ends are cut off, those in between filled by straight lines: where
    much is missing, power moves towards long periods. The mean is subtracted, with `detrend`
    a straight line by least squares; then a Hann window is laid over the n samples. The power
    is one-sided and normalised so that its sum divided by n is the variance of the (windowed)
    series.

    The strongest period belongs to the highest peak, frequency zero and all that takes longer
    than the whole series left out. It is looked for in the same spectrum with zeros appended
    to at least eight times the length, and refined by a parabola through the logarithms of
    the peak and its two neighbours.

    Args:
        series: shape (m,), real numbers, evenly spaced in time, NaN where a sample is missing;
            at least four present.
        detrend: whether to subtract a straight line, not only the mean.

    Raises:
        ValueError: the series cannot be used, has fewer than four samples present, is
            constant (with `detrend`, a straight line), or so large that its power overflows.

    Source: F. J. Harris, Proceedings of the IEEE 66 (1978) 51, for the window and the peak;
    P. D. Welch, IEEE Transactions on Audio and Electroacoustics 15 (1967) 70, for the power.
    """
    scaled, exponent = normalised(_without_gaps(as_series(series)))
    samples = _without_trend(scaled, detrend=detrend)
    count = samples.size
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(count) / count)
    windowed = samples * window

    power = np.square(np.abs(np.fft.rfft(windowed))) / np.sum(np.square(window))
    # The negative frequencies; zero and, in an even series, one half have none.
    power[1 : (count + 1) // 2] *= 2
    with np.errstate(over="ignore"):
        power = np.ldexp(power, 2 * exponent)
    if not np.isfinite(power).all():
        raise ValueError("the samples are so large that their power overflows; scale them down")
    return {
        "strongest_period": _strongest_period(windowed),
        "frequencies": np.arange(count // 2 + 1) / count,
        "power": power,
    }


def _without_gaps(series: Floats) -> Floats:
    present = np.flatnonzero(~np.isnan(series))
    if present.size < LEAST_SAMPLES:
        raise ValueError(
            f"a spectrum needs at least {LEAST_SAMPLES} samples,"
            f" the series has {present.size} of {series.size} present"
        )
    places = np.arange(present[0], present[-1] + 1)
    return np.interp(places, present, series[present])


def _without_trend(samples: Floats, *, detrend: bool) -> Floats:
    rest: Floats = samples - samples.mean()
    least = ROUNDING * np.max(np.abs(samples))
    if np.max(np.abs(rest)) <= least:
        raise ValueError("the series is constant: it has no period")
    if detrend:
        time = np.linspace(-1.0, 1.0, samples.size)
        rest = rest - time * (time @ rest / (time @ time))
        if np.max(np.abs(rest)) <= least:
            raise ValueError("the series is a straight line: it has no period")
    return rest


def _strongest_period(windowed: Floats) -> float:
    count = windowed.size
    size = 1 << (OVERSAMPLING * count - 1).bit_length()
    power = np.square(np.abs(np.fft.rfft(windowed, size)))
    # Below one cycle in the whole series there is no period to see, only what the trend left.
    lowest = -(-size // count)
    peaks = lowest + np.flatnonzero(
        (power[lowest:-1] >= power[lowest - 1 : -2]) & (power[lowest:-1] > power[lowest + 1 :])
    )
    if peaks.size == 0:
        # It only rises, towards one half: that is its peak.
        return size / (lowest + int(np.argmax(power[lowest:])))
    peak = int(peaks[np.argmax(power[peaks])])
    if power[-1] > power[peak]:
        return 2.0
    left, middle, right = np.log(np.maximum(power[peak - 1 : peak + 2], np.finfo(float).tiny))
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return float(size / (peak + shift))
