"""JSON bodies are read as kombu reads them, with its dates and UUIDs or without."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from uuid import UUID

import pytest
from kombu.utils import json as kombu_json

from broker.body import JSON, decode, encode
from broker.errors import InvalidMessage

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        [[1, "é", None, 1.5, True], {"a": {"b": []}}, {"chord": None}],
        {"at": WHEN, "id": UUID(int=7)},
        {"__type__": "a word of the sender's"},
        "__type__",
    ],
)
def test_what_was_written_is_read(value) -> None:
    assert decode(encode(value).content, JSON) == value


def test_an_escaped_mark_is_a_mark() -> None:
    text = kombu_json.dumps(WHEN)
    for escaped in (text.replace("__type", "\\u005f_type"), text.replace("__t", "\\u005F\\u005Ft")):
        assert decode(escaped.encode(), JSON) == WHEN
        assert decode(memoryview(escaped.encode()), JSON) == WHEN


@pytest.mark.parametrize(
    "text", [" [1] ", "[1]\n", "\t7", '"é"', "NaN", "-Infinity", "1e400", "null"]
)
def test_what_python_takes_for_json_is_read(text) -> None:
    assert repr(decode(text, JSON)) == repr(json.loads(text))


@pytest.mark.parametrize("text", ["", " ", "[1] 2", "[1]]", "nul", "\ufeff[1]", "'a'", "[1,]"])
def test_what_python_does_not_take_for_json_is_refused_in_its_words(text) -> None:
    with pytest.raises(json.JSONDecodeError) as theirs:
        json.loads(text)
    with pytest.raises(InvalidMessage, match=re.escape(str(theirs.value))):
        decode(text, JSON)


@pytest.mark.parametrize("content", [b"\xff", b"[", b"", b'{"a": \xe9}', "["])
def test_what_is_no_json_is_refused(content) -> None:
    with pytest.raises(InvalidMessage):
        decode(content, JSON)
