"""Values from a command line: ``KEY=VALUE``, with arrays read from CSV and .npy files.

A VALUE is JSON where it parses, else text; ``@FILE.csv:COLUMN`` and ``@FILE.npy`` read an
array. Text that begins with @ is written as a JSON string: ``KEY='"@text"'``.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.errors import InvalidData, InvalidInput
from producers.table import Table, content_of, listed, number_in, shown


def parse_arguments(items: Iterable[str]) -> dict[str, Any]:
    """Read the arguments of a job from ``KEY=VALUE`` items.

    Raises:
        InvalidInput: an item has no ``=`` or no key, or a key comes twice.
        InvalidData: a file cannot be read; see `read_array`.
    """
    arguments: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        key = key.strip()
        if not equals or not key:
            raise InvalidInput(
                f"{shown(item)} is not an argument; write KEY=VALUE, such as window=13"
            )
        if key in arguments:
            raise InvalidInput(f"the argument {shown(key)} is given twice; leave one of them")
        arguments[key] = parse_value(text)
    return arguments


def parse_value(text: str) -> Any:
    """Read one value: JSON where it parses, else text; after @ an array from a file.

    Raises:
        InvalidInput: the text is not Unicode.
        InvalidData: the file cannot be read as an array; see `read_array`.
    """
    if text.startswith("@"):
        return read_array(text[1:])
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass  # text then
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{shown(text)} is not UTF-8 text; pass it in UTF-8") from None
    return text


def read_array(reference: str) -> NDArray[Any]:
    """Read an array from ``FILE.npy``, ``FILE.csv:COLUMN``, or ``FILE.csv`` with one series.

    Tables may also end in ``.tsv`` or ``.txt``. The column begins after the first colon behind
    the suffix, so that paths and columns may hold colons.

    Returns:
        A column as `read_column`, a .npy file as it is stored.

    Raises:
        InvalidData: in one sentence, with the file and where it helps its line.
    """
    found = re.fullmatch(r"(.+?\.(?:csv|tsv|txt))(?::(.*))?|(.+\.npy)", reference, re.I | re.S)
    if found is None:
        raise InvalidData(
            f"{shown('@' + reference)} names no array; write @FILE.csv:COLUMN or @FILE.npy,"
            " or '\"@text\"' for text that begins with @"
        )
    table, column, stored = found.groups()
    return read_npy(Path(stored)) if stored else read_column(Path(table), column)


def read_npy(path: Path) -> NDArray[Any]:
    """Read a .npy file of any shape and any dtype without Python objects.

    Raises:
        InvalidData: it cannot be read, is not a .npy file, or holds pickled objects.
    """
    content = content_of(path)
    if not content.startswith(np.lib.format.MAGIC_PREFIX):
        raise InvalidData(f"{path} is not a .npy file; write one with numpy.save")
    try:
        array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    # numpy's reader evaluates the header and says what is wrong in many ways.
    except Exception as exc:
        if "allow_pickle" in str(exc):
            raise InvalidData(
                f"{path} holds pickled Python objects, which are never read; save it again as"
                " numbers, for example after array.astype(float)"
            ) from exc
        reason = " ".join(str(exc).split()) or type(exc).__name__
        raise InvalidData(f"{path} cannot be read as a .npy file: {reason}") from exc
    return array


def read_column(path: Path, column: str | None = None) -> NDArray[np.float64]:
    """Read a column of a CSV file as float64 of shape (n,).

    The file is UTF-8 with a header row; the delimiter is a comma, or a semicolon or tab where
    every row says so. A cell that is blank, or NA, N/A, NaN, null, none or -, becomes NaN.

    Args:
        path: the file.
        column: its name in the header, exactly or else but for case and blanks around it; may
            be left out where a single column holds numbers.

    Raises:
        InvalidData: there is no such file or column, or a cell is not a number.
    """
    table = Table.read(path)
    if column is not None:
        position = table.position(column)
    else:
        numeric = [at for at in range(len(table.header)) if table.only_numbers(at)]
        if len(numeric) != 1:
            which = "no column holds" if not numeric else "more than one column holds"
            raise InvalidData(
                f"{path} needs a column named, since {which} only numbers: write"
                f" {path}:COLUMN with one of {listed(table.header)}"
            )
        position = numeric[0]
    if not table.rows:
        raise InvalidData(f"{path} has a header row but no values below it")
    values = np.empty(len(table.rows))
    for at, (line, cells) in enumerate(table.rows):
        number = number_in(cells[position])
        if number is None:
            raise InvalidData(
                f"{path}:{line}: {shown(cells[position])} in column"
                f" {table.header[position]!r} is not a number; leave a cell blank where nothing"
                " was measured, and write decimals with a point"
            )
        values[at] = number
    return values
