"""What a visitor sends, checked; and what is answered where it will not do."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from broker.errors import BrokerUnavailable, InvalidInput, PublishFailed, RabbitryError
from web.calls import Busy, NoSuchCall, NotTaken

MOST_BYTES = 512 * 1024
# What is refused for its size is read so far all the same, else its sender never reads why.
DRAIN_BYTES = 8 * 2**20
MOST_ROWS = 10_000
# Name: the least, the most, what it is unless given.
NUMBERS = {"window": (3, 301, 53), "passes": (0, 10, 2), "resamples": (1, 5000, 1000)}
DATA = Path(__file__).resolve().parents[1] / "data"
SAMPLES = {"co2.csv": "co2", "sunspots.csv": "SUNACTIVITY"}
PAGE = Path(__file__).with_name("page.html")


class TooLarge(InvalidInput):
    """What was sent is more than is taken."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a visitor wants smoothed, and how.

    Attributes:
        series: shape (n,), NaN where a sample is missing.
        options: of the job.
    """

    series: NDArray[np.float64]
    options: dict[str, int]


def read_body(stream: BinaryIO, content_length: str | None) -> bytes:
    """Read the body of a request, if it is not too large.

    Args:
        stream: gives the body.
        content_length: what the request says of it.

    Raises:
        InvalidInput: the request does not say.
        TooLarge: it is too large.
    """
    if not content_length or not (content_length.isascii() and content_length.isdigit()):
        raise InvalidInput("send the CSV as the body of the request, with its Content-Length")
    size_bytes = int(content_length)
    if size_bytes <= MOST_BYTES:
        return stream.read(size_bytes)
    left = min(size_bytes, DRAIN_BYTES)
    while left > 0 and (chunk := stream.read(min(left, 2**16))):
        left -= len(chunk)
    raise TooLarge(f"the file has {size_bytes:,} bytes; at most {MOST_BYTES:,} are taken")


def read_order(body: bytes, query: Mapping[str, str]) -> Order:
    """Read a CSV with a header and the settings beside it.

    Args:
        body: the CSV; a field that is empty, or ``nan``, is a missing sample.
        query: ``column`` (the last by default), ``window``, ``passes``, ``resamples``.

    Raises:
        InvalidInput: something in it cannot be used; says what.
    """
    unknown = sorted(query.keys() - NUMBERS.keys() - {"column"})
    if unknown:
        known = ", ".join(("column", *NUMBERS))
        raise InvalidInput(f"there is no setting {unknown[0]!r}; there are {known}")
    series = read_column(body, query.get("column"))
    options = {name: read_number(name, query.get(name)) for name in NUMBERS}
    there = int(np.isfinite(series).sum())
    if there < 3:
        raise InvalidInput(f"the column has {there} numbers; a curve needs at least 3")
    if "window" in query and options["window"] > there:
        raise InvalidInput(f"window={options['window']} is more than the column's {there} numbers")
    return Order(series, {**options, "window": min(options["window"], there)})


def read_column(body: bytes, column: str | None) -> NDArray[np.float64]:
    """Return a column of a CSV as an array.

    Raises:
        InvalidInput: it is no CSV, has no such column, or one of its fields is no number.
    """
    try:
        text = body.decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as exc:
        raise InvalidInput(f"this is not a CSV file in UTF-8: {exc}") from None
    rows = [row for row in rows if row]
    if len(rows) < 2:
        raise InvalidInput("this is not a CSV file with a header and rows of values")
    if len(rows) - 1 > MOST_ROWS:
        raise TooLarge(f"the file has {len(rows) - 1:,} rows; at most {MOST_ROWS:,} are taken")
    header = [name.strip() for name in rows[0]]
    name = header[-1] if column is None else column
    if name not in header:
        raise InvalidInput(f"there is no column {name!r}; there are {', '.join(header)[:200]}")
    place = header.index(name)
    values = np.empty(len(rows) - 1)
    for number, row in enumerate(rows[1:]):
        if len(row) != len(header):
            raise InvalidInput(
                f"row {number + 2} has {len(row)} fields where the header has {len(header)}"
            )
        try:
            values[number] = float(row[place].strip() or "nan")
        except ValueError:
            raise InvalidInput(
                f"row {number + 2}: {row[place][:40]!r} in column {name!r} is not a number"
            ) from None
    return np.where(np.isfinite(values), values, np.nan)


def read_number(name: str, text: str | None) -> int:
    """Return a whole number within its range, or what it is unless given.

    Raises:
        InvalidInput: it is none.
    """
    least, most, usual = NUMBERS[name]
    if text is None:
        return usual
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise InvalidInput(f"{name} is a whole number from {least} to {most}, not {text[:40]!r}")
    return number


def read_last_event(text: str | None) -> int:
    """Return the number of the last event that a browser has; 0 where it names none."""
    return int(text) if text is not None and text.isascii() and text.isdigit() else 0


def refusal(exc: RabbitryError) -> tuple[int, dict[str, Any]]:
    """Return the status and the document that answer an error."""
    if isinstance(exc, TooLarge):
        status = 413
    elif isinstance(exc, NoSuchCall):
        status = 404
    elif isinstance(exc, InvalidInput):
        status = 400
    elif isinstance(exc, (Busy, NotTaken, BrokerUnavailable, PublishFailed)):
        status = 503
    else:
        status = 500
    return status, {"error": type(exc).__name__, "message": str(exc)}
