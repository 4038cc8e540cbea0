"""Deliveries, put together from frames however these are cut."""

from __future__ import annotations

from struct import pack
from typing import Any

import pytest
from amqp.serialization import dumps
from hypothesis import given
from hypothesis import strategies as st

from broker.deliveries import Deliveries, Delivery
from broker.errors import InvalidMessage
from broker.frames import BODY, HEADER, METHOD, properties_of

DELIVER = pack(">HH", 60, 60)

texts = st.text(max_size=20)
# What replies have, and what py-amqp is to read.
values = texts | st.integers(-(2**40), 2**40) | st.booleans() | st.none()
properties = st.fixed_dictionaries(
    {},
    optional={
        "content_type": texts,
        "content_encoding": texts,
        "application_headers": st.dictionaries(texts, values, max_size=4),
        "delivery_mode": st.integers(1, 2),
        "priority": st.integers(0, 31),
        "correlation_id": texts,
        "reply_to": texts,
        "message_id": texts,
        "timestamp": st.integers(0, 2**40),
    },
)


def frames(
    tag: int, redelivered: bool, values: dict[str, Any], parts: list[bytes]
) -> list[tuple[int, bytes]]:
    """Return the frames of one delivery, by py-amqp's encoder."""
    method = DELIVER + dumps("sLbss", ("ctag1", tag, redelivered, "", "a.queue"))
    size = sum(map(len, parts))
    return [
        (METHOD, method),
        (HEADER, pack(">HHQ", 60, 0, size) + properties_of(values)),
        *((BODY, part) for part in parts),
    ]


@given(
    st.lists(
        st.tuples(
            st.integers(1, 2**63),
            st.booleans(),
            properties,
            st.lists(st.binary(min_size=1, max_size=30), max_size=3),
        ),
        max_size=4,
    )
)
def test_what_was_sent_is_what_is_delivered(sent: list[Any]) -> None:
    got: list[Delivery] = []
    deliveries = Deliveries(got.append)
    for each in sent:
        for kind, payload in frames(*each):
            assert deliveries.take(kind, payload)
            assert not deliveries.take(8, b"")  # a heartbeat may stand anywhere
    assert len(got) == len(sent)
    for found, (tag, redelivered, values, parts) in zip(got, sent, strict=True):
        assert (found.tag, found.redelivered) == (tag, redelivered)
        assert found.body == b"".join(parts)
        assert found.content_type == values.get("content_type", "")
        assert found.headers() == values.get("application_headers", {})
        correlation_id = values.get("correlation_id")
        wanted = None if correlation_id is None else correlation_id.encode()
        assert found.correlation_id == wanted


def test_frames_of_something_else_are_left_alone() -> None:
    deliveries = Deliveries(lambda delivery: None)
    for kind, payload in [
        (METHOD, pack(">HH", 60, 50) + b"a return"),
        (HEADER, pack(">HHQH", 60, 0, 1, 0)),
        (BODY, b"x"),
        (METHOD, pack(">HHQB", 60, 80, 1, 0)),
    ]:
        assert not deliveries.take(kind, payload)


@pytest.mark.parametrize("name", [b"\xff\xfe", b"\x80"])
def test_what_is_no_text_is_an_error_of_that_delivery_alone(name: bytes) -> None:
    got: list[Delivery] = []
    deliveries = Deliveries(got.append)
    # No type of AMQP's is named so.
    table = bytes([len(name)]) + name + b"?\x01"
    header = (
        pack(">HHQH", 60, 0, 0, 0x8000 | 0x2000 | 0x0400)
        + bytes([len(name)])
        + name
        + pack(">I", len(table))
        + table
        + bytes([len(name)])
        + name
    )
    method, _ = frames(1, False, {}, [])
    assert deliveries.take(*method)
    assert deliveries.take(HEADER, header)
    [found] = got
    assert found.correlation_id == name
    assert "\\x" in found.content_type
    with pytest.raises(InvalidMessage, match="headers"):
        found.headers()
