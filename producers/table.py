"""A CSV file as people write them: header, delimiter, quotes, blanks, and what is wrong where."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.errors import InvalidData, did_you_mean

DELIMITERS = (",", ";", "\t")
# Cells that mean "no measurement", whatever their case.
MISSING = frozenset({"", "-", "na", "n/a", "#n/a", "<na>", "nan", "null", "none"})
# float() reads more than numbers as people write them: 1_000, infinity, digits of other scripts.
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
SNIFFED_LINES = 100
SHOWN = 40


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file.

    Attributes:
        path: as it was given.
        header: the names of the columns, without blanks around them.
        rows: each row's line in the file, from 1, and its cells, at least one for each column.
    """

    path: Path
    header: list[str]
    rows: list[tuple[int, list[str]]]

    @classmethod
    def read(cls, path: Path) -> Table:
        """Read a file of UTF-8 text with a header row.

        Blank lines and lines that begin with # are passed over before the header; below it
        blank lines are passed over too, but in a table of one column each is a blank cell.

        Raises:
            InvalidData: the file cannot be read, is not text, has no header, or a row has
                another number of cells than the header.
        """
        lines = list(io.StringIO(_text(path), newline=""))
        skipped = 0
        while skipped < len(lines) and lines[skipped].lstrip()[:1] in ("", "#"):
            skipped += 1
        if skipped == len(lines):
            raise InvalidData(f"{path} is empty; it needs a header row and values below it")
        rows = _rows(path, lines, skipped=skipped)
        line, header = next(rows)
        header = [name.strip() for name in header]
        if all(number_in(name) is not None for name in header):
            raise InvalidData(
                f"{path}:{line}: the first row must name the columns, not hold values;"
                " put a header row before it"
            )
        return cls(path, header, list(_rectangular(path, len(header), rows)))

    def position(self, column: str) -> int:
        """Return the place of a column: its name exactly, else but for case and blanks around it.

        Raises:
            InvalidData: there is none of that name, or more than one.
        """
        wanted = column.strip().casefold()
        exact = [at for at, name in enumerate(self.header) if name == column]
        alike = [at for at, name in enumerate(self.header) if name.casefold() == wanted]
        found = exact or alike
        if len(found) > 1:
            raise InvalidData(
                f"{self.path} has {len(found)} columns named {column!r}; rename all but one"
            )
        if not found:
            raise InvalidData(
                f"{self.path} has no column {shown(column)}{did_you_mean(column, self.header)};"
                f" its columns are {listed(self.header)}"
            )
        return found[0]

    def only_numbers(self, position: int) -> bool:
        """Say whether a column holds numbers and blanks, and at least one number."""
        numbers = [number_in(cells[position]) for _, cells in self.rows]
        return None not in numbers and any(number == number for number in numbers)


def number_in(cell: str) -> float | None:
    """Return the number in a cell, NaN where it says that nothing was measured, else None."""
    cell = cell.strip()
    if cell.casefold() in MISSING:
        return float("nan")
    return float(cell) if NUMBER.fullmatch(cell) else None


def content_of(path: Path) -> bytes:
    """Read a whole file. Raises InvalidData."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InvalidData(f"there is no file {path}; is its path right?") from None
    except IsADirectoryError:
        raise InvalidData(f"{path} is a directory, not a file of values") from None
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise InvalidData(f"{shown(str(path))} cannot be read: {reason}") from None


def listed(names: Sequence[str]) -> str:
    """Return names as a list in a sentence, cut where there are very many."""
    text = ", ".join(repr(name) for name in names[:SHOWN])
    return text + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def shown(text: str) -> str:
    """Return a text as it stands in a sentence: quoted, and cut where it is long."""
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 1] + "…")


def _text(path: Path) -> str:
    content = content_of(path)
    if b"\0" in content:
        raise InvalidData(f"{path} is a binary file or UTF-16; save it as CSV in UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise InvalidData(
            f"{path}:{line}: this is not UTF-8 text; convert the file, for example with"
            " iconv -t UTF-8"
        ) from None


def _rows(path: Path, lines: list[str], *, skipped: int) -> Iterator[tuple[int, list[str]]]:
    lines = lines[skipped:]
    reader = csv.reader(lines, delimiter=_delimiter(lines), skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            yield skipped + reader.line_num, cells
    except csv.Error as exc:
        raise InvalidData(
            f"{path}:{skipped + reader.line_num}: this is not CSV ({exc}); is a quotation mark"
            " left open?"
        ) from None


def _rectangular(
    path: Path, width: int, rows: Iterator[tuple[int, list[str]]]
) -> Iterator[tuple[int, list[str]]]:
    blank: list[tuple[int, list[str]]] = []
    for line, cells in rows:
        if len(cells) <= 1 and not "".join(cells).strip():
            # In a single column this is a gap, unless nothing but blank lines follows.
            if width == 1:
                blank.append((line, [""]))
            continue
        if len(cells) < width or any(cell.strip() for cell in cells[width:]):
            raise InvalidData(
                f"{path}:{line}: this row has {len(cells)} cells, the header has {width}"
            )
        yield from blank
        blank = []
        yield line, cells


def _delimiter(lines: list[str]) -> str:
    """Return the delimiter that cuts every one of the first rows alike, a comma if in doubt."""
    alike = []
    for delimiter in DELIMITERS:
        reader = csv.reader(lines[:SNIFFED_LINES], delimiter=delimiter, skipinitialspace=True)
        try:
            widths = {len(cells) for cells in reader if cells}
        except csv.Error:
            continue
        if len(widths) == 1 and widths != {1}:
            alike.append(delimiter)
    if not alike and "," not in lines[0]:
        # Some row is cut short: then the header says what it was to be cut by.
        alike = [delimiter for delimiter in DELIMITERS if delimiter in lines[0]]
    return alike[0] if len(alike) == 1 else ","
