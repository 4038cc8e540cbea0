"""A layout reads the tables that it was learned from, and says of others that it does not."""

from __future__ import annotations

from typing import Any

import pytest
from amqp.basic_message import Message

from consumers.deliveries import Reader
from consumers.layout import Layout

HEADERS: dict[str, Any] = {
    "argsrepr": "(1,)",
    "eta": None,
    "id": "a",
    "ignore_result": True,
    "retries": 0,
    "count": 7,
    "published": 2**40,
    "stamps": {},
    "timelimit": [None, 60],
}


def table(headers: dict[str, Any]) -> bytes:
    # Behind the flags and the table's size.
    return bytes(Message("", application_headers=headers)._serialize_properties()[6:])


def layout(*all_: dict[str, Any]) -> Layout | None:
    found: Layout | None = None
    for headers in all_:
        raw = table(headers)
        other = Layout.of(raw, 0, len(raw), headers)
        found = other if found is None or other is None else found.joined(other)
    return found


def read(known: Layout | None, raw: bytes) -> Any:
    assert known is not None
    return known.read(raw, 0, len(raw))


OTHER = {
    **HEADERS,
    "argsrepr": "('é',)",
    "id": "",
    "ignore_result": False,
    "count": 8,
    "published": 2**41,
}


def test_what_differed_is_read_and_what_was_the_same_is_known() -> None:
    known = layout(HEADERS, OTHER)
    third = {**HEADERS, "argsrepr": "\x03etaV", "id": "b" * 300, "count": -1, "published": 2**42}
    for each in (HEADERS, OTHER, third):
        found = read(known, table(each))
        assert found == each
        assert list(found) == list(each)


@pytest.mark.parametrize(
    "change", [{"retries": 1}, {"eta": "now"}, {"timelimit": [None, 61]}, {"more": 1}], ids=str
)
def test_another_table_is_not_read_until_it_is_learned(change: dict[str, Any]) -> None:
    known, other = layout(HEADERS, OTHER), {**HEADERS, **change}
    assert read(known, table(other)) is None
    # A field that was the same so far may vary from now on; one of another type makes a layout.
    assert (layout(HEADERS, OTHER, other) is not None) is (change == {"retries": 1})


def test_no_table_that_is_cut_off_is_read() -> None:
    known, raw = layout(HEADERS, OTHER), table(HEADERS)
    assert [size for size in range(len(raw)) if read(known, raw[:size]) is not None] == []
    assert read(known, raw + b"\x01aV") is None


def test_bytes_that_are_no_text_are_left_to_who_reads_field_by_field() -> None:
    raw = table(HEADERS).replace(b"(1,)", b"(\xff,)")
    assert read(layout(HEADERS, OTHER), raw) is None
    assert Reader()._table(raw, 0, len(raw))["argsrepr"] == b"(\xff,)"


@pytest.mark.parametrize("value", [1.5, [[]], {"a": {}}, [{"a": 1}]], ids=str)
def test_tables_with_values_that_no_copy_is_made_of_have_no_layout(value: Any) -> None:
    assert layout({**HEADERS, "value": value}) is None
