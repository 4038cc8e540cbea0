"""How the tables of many messages are alike: read as such, they take a third of the time.

The headers of a job's messages have the same names, types and mostly values; a few differ, such as
the id and the texts of the arguments. A layout is what is the same, learned from what came, and
reads what differs.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

_long = struct.Struct(">I").unpack_from
_signed = struct.Struct(">i").unpack_from
_signed_long_long = struct.Struct(">q").unpack_from
_TEXT, _INT, _LONG, _LONG_TOO, _BOOL, _NONE, _TABLE, _LIST = b"SIlLtVFA"
# Bytes of a value that has a size of its own follow those of the size.
_SIZED = (_TEXT, _TABLE, _LIST)
_SIZES = {_INT: 4, _LONG: 8, _LONG_TOO: 8, _BOOL: 1, _NONE: 0}
_VARYING = (_TEXT, _INT, _LONG, _LONG_TOO, _BOOL)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a table.

    Attributes:
        kind: its type.
        head: its name and type, as they came.
        value: as it came.
    """

    kind: int
    head: bytes
    value: bytes


class Layout:
    """What tables have in common.

    Args:
        fields: of one of them, in order.
        found: what that one says.
        varying: the indexes of the fields that differ.
    """

    __slots__ = ("_copied", "_fields", "_found", "_rest", "_steps", "_varying")

    def __init__(
        self,
        fields: Sequence[Field],
        found: Mapping[Any, Any],
        varying: frozenset[int] = frozenset(),
    ) -> None:
        self._fields = fields
        self._found = {name: _copied(value) for name, value in found.items()}
        self._varying = varying
        self._copied = tuple(
            (name, value) for name, value in self._found.items() if isinstance(value, (dict, list))
        )
        steps, same = [], b""
        for index, (field, name) in enumerate(zip(fields, found, strict=True)):
            same += field.head
            if index in varying:
                steps.append((same, len(same), field.kind, name))
                same = b""
            else:
                same += field.value
        self._steps, self._rest = tuple(steps), same

    @classmethod
    def of(cls, data: bytes, at: int, stop: int, found: Mapping[Any, Any]) -> Self | None:
        """Return the layout of one table; None where it has fields that no layout has.

        Args:
            data: that the table is in.
            at, stop: where it begins and ends.
            found: what it says.
        """
        fields = _fields(data, at, stop)
        if fields is None or len(fields) != len(found) or not all(map(_is_flat, found.values())):
            return None
        return cls(fields, found)

    def joined(self, other: Layout) -> Layout | None:
        """Return the layout of both tables; None where their fields are not the same."""
        varying = set(self._varying | other._varying)
        if len(self._fields) != len(other._fields):
            return None
        for index, (one, two) in enumerate(zip(self._fields, other._fields, strict=True)):
            if one.head != two.head:
                return None
            if one.value != two.value:
                varying.add(index)
        if any(self._fields[index].kind not in _VARYING for index in varying):
            return None
        return Layout(other._fields, other._found, frozenset(varying))

    def read(self, data: bytes, at: int, stop: int) -> dict[Any, Any] | None:
        """Return what a table says, or None where it is another one.

        Args:
            data: that the table is in.
            at, stop: where it begins and ends.
        """
        found = self._found.copy()
        try:
            for same, size, kind, name in self._steps:
                begin = at + size
                if data[at:begin] != same:
                    return None
                if kind == _TEXT:
                    begin += 4
                    at = begin + _long(data, begin - 4)[0]
                    found[name] = data[begin:at].decode()
                elif kind == _INT:
                    at = begin + 4
                    (found[name],) = _signed(data, begin)
                elif kind == _BOOL:
                    at = begin + 1
                    found[name] = data[begin] != 0
                else:
                    at = begin + 8
                    (found[name],) = _signed_long_long(data, begin)
        # Text that is none, or a table that is cut off: who reads field by field knows.
        except (UnicodeDecodeError, struct.error, IndexError):
            return None
        if at + len(self._rest) != stop or data[at:stop] != self._rest:
            return None
        for name, value in self._copied:
            found[name] = value.copy()
        return found


def _fields(data: bytes, at: int, stop: int) -> list[Field] | None:
    """Return the fields of a table; None where one is of a type that is not known here."""
    found = []
    while at < stop:
        begin = at
        at += 2 + data[at]
        kind, head = data[at - 1], data[begin:at]
        if kind in _SIZED:
            end = at + 4 + _long(data, at)[0]
        elif kind in _SIZES:
            end = at + _SIZES[kind]
        else:
            return None
        found.append(Field(kind, head, data[at:end]))
        at = end
    return found


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, (dict, list)) else value


def _is_flat(value: Any) -> bool:
    """Say whether a copy of a value is one of all that may be changed in it."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not any(isinstance(each, (dict, list)) for each in inner)
