"""Stacks the arrays of many messages into one, where they agree."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np


def kind_of(value: Any) -> Hashable:
    """Return what arrays must have in common to be stacked, dtype and shape; None for no array."""
    return (value.dtype, value.shape) if isinstance(value, np.ndarray) else None


def stacked(values: Sequence[Any]) -> np.ndarray[Any, Any] | None:
    """Return arrays as one with a new first axis, or None where they do not agree.

    Args:
        values: at least one; those that are no arrays cannot be stacked.
    """
    kind = kind_of(values[0])
    if kind is None or any(kind_of(value) != kind for value in values):
        return None
    # Into memory of its own, and so writable; what came over the wire is not.
    return np.stack(values)
