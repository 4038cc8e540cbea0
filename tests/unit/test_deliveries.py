"""What is read of a delivery is what py-amqp reads of the same frames."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from struct import pack
from types import SimpleNamespace
from typing import Any

import pytest
from amqp.basic_message import Message
from amqp.exceptions import UnexpectedFrame
from amqp.method_framing import frame_handler
from amqp.serialization import decode_properties_basic, dumps
from hypothesis import example, given
from hypothesis import strategies as st

from consumers.deliveries import BODY, HEADER, METHOD, Deliveries, Reader

short_text = st.text(max_size=40).filter(lambda text: len(text.encode()) < 256)
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False),
        st.text(max_size=30),
        st.binary(max_size=30),
        st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)).map(
            lambda when: when.replace(microsecond=0)
        ),
        st.just(Decimal("1.5")),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(short_text, inner, max_size=4)
    ),
    max_leaves=12,
)
properties = st.fixed_dictionaries(
    {},
    optional={
        "application_headers": st.dictionaries(short_text, values, max_size=8),
        "delivery_mode": st.integers(0, 255),
        "priority": st.integers(0, 255),
        "timestamp": st.integers(0, 2**40),
        **dict.fromkeys(
            (
                *("content_type", "content_encoding", "correlation_id", "reply_to", "expiration"),
                *("message_id", "type", "user_id", "app_id", "cluster_id"),
            ),
            short_text,
        ),
    },
)


@given(properties)
@example({})
@example({"application_headers": {}})
def test_properties_and_headers_are_read_as_py_amqp_reads_them(given_: dict[str, Any]) -> None:
    data = b"\0" * 12 + Message("", **given_)._serialize_properties()
    expected, _ = decode_properties_basic(data, 12)
    assert Reader().properties(data, 12) == expected


def test_text_that_is_no_utf_8_stays_bytes_in_names_and_values() -> None:
    table = b"\x02\xff\xfeS\x00\x00\x00\x02\xff\xfd"
    data = b"\0" * 12 + b"\x20\x00" + pack(">I", len(table)) + table
    assert Reader().properties(data, 12) == {"application_headers": {b"\xff\xfe": b"\xff\xfd"}}
    assert decode_properties_basic(data, 12)[0] == Reader().properties(data, 12)


@given(st.lists(properties, min_size=2, max_size=4), st.data())
def test_what_is_like_the_messages_before_is_read_the_same(given_, data) -> None:
    """Messages of one way, many of which differ in values alone."""
    read, alike = Reader(), []
    for each in given_:
        headers = each.get("application_headers", {})
        alike += [
            {
                **each,
                "application_headers": {name: data.draw(_like(headers[name])) for name in headers},
            }
            for _ in range(3)
        ]
    for each in data.draw(st.permutations(alike)):
        raw = b"\0" * 12 + Message("", **each)._serialize_properties()
        expected, _ = decode_properties_basic(raw, 12)
        found = read.properties(raw, 12, b"way")
        assert found == expected
        assert list(found["application_headers"]) == list(expected["application_headers"])
        # It belongs to who gets it.
        _ruin(found["application_headers"])


def _like(value: Any) -> Any:
    """Return a strategy for values of the same type, that one among them."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.sampled_from((value, 0, 7, 2**31 - 1, -(2**31), 2**40, -(2**63)))
    if isinstance(value, str):
        return st.sampled_from((value, "", "a", "é" * 300, "b\x03etaV"))
    return st.just(value)


def _ruin(value: Any) -> None:
    if isinstance(value, dict):
        for each in value.values():
            _ruin(each)
        value.clear()
    elif isinstance(value, list):
        for each in value:
            _ruin(each)
        value.append("ruined")


class Connection:
    """As much of py-amqp's connection as its frame handler asks for."""

    def __init__(self, **channel: Any) -> None:
        self.bytes_recv = 0
        self.taken: list[tuple[Any, ...]] = []
        self.others: list[Any] = []
        self.channels = {
            1: SimpleNamespace(
                is_closing=False,
                auto_decode=True,
                _callbacks={(60, 60): lambda *args: self.taken.append(args)},
                dispatch_method=lambda *args: self.others.append(args),
                **channel,
            )
        }
        self.on_inbound_frame: Any = frame_handler(self, lambda *args: self.others.append(args[:2]))


def frames(body: bytes, *chunks: bytes, **given_: Any) -> list[tuple[int, int, bytes]]:
    method = b"\0\x3c\0\x3c" + dumps("sLbss", ("tag", 7, True, "jobs", "normal.é"))
    header = pack(">HxxQ", 60, len(body)) + Message("", **given_)._serialize_properties()
    return [(METHOD, 1, method), (HEADER, 1, header), *((BODY, 1, chunk) for chunk in chunks)]


@pytest.mark.parametrize(
    ("encoding", "body", "expected"),
    [
        ("utf-8", "é".encode(), "é"),
        ("utf-8", b"\xff", b"\xff"),
        ("binary", b"\xff", b"\xff"),
        ("no-such-encoding", b"x", b"x"),
        (None, b"x", b"x"),
        ("utf-8", b"", ""),
        (None, b"", ""),
    ],
)
def test_a_delivery_is_handed_over_with_its_last_frame(encoding, body, expected) -> None:
    connection = Connection()
    deliveries = Deliveries(connection)
    given_ = {} if encoding is None else {"content_encoding": encoding}
    chunks = [body[at : at + 1] for at in range(len(body))]
    *first, last = frames(body, *chunks, **given_)
    assert [deliveries.on_frame(each) for each in first] == [False] * len(first)
    assert not connection.taken
    assert deliveries.on_frame(last)
    ((*delivery, message),) = connection.taken
    assert delivery == ["tag", 7, True, "jobs", "normal.é"]
    assert (message.body, message.properties) == (expected, given_)
    assert connection.bytes_recv == len(first) + 1


def test_other_methods_and_other_channels_stay_with_py_amqp_also_amidst_a_delivery() -> None:
    connection = Connection()
    deliveries = Deliveries(connection)
    method, header, body = frames(b"x", b"x")
    deliveries.on_frame(method)
    deliveries.on_frame((METHOD, 0, b"\x00\x0a\x00\x3c\x01x"))
    deliveries.on_frame((8, 0, b""))
    deliveries.on_frame(header)
    assert deliveries.on_frame(body)
    assert connection.others == [(0, (10, 60))]
    assert len(connection.taken) == 1


def test_frames_in_a_wrong_order_are_an_error() -> None:
    method, header, body = frames(b"xx", b"x")
    for wrong in ([method, body], [method, method], [method, header, header]):
        deliveries = Deliveries(Connection())
        for each in wrong[:-1]:
            deliveries.on_frame(each)
        with pytest.raises(UnexpectedFrame):
            deliveries.on_frame(wrong[-1])
