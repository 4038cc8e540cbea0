"""What is acknowledged together is exactly what was acknowledged, whatever was settled between."""

from __future__ import annotations

import zlib
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import amqp
import kombu
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport import pyamqp

from consumers.acks import Acks, CollectingChannel, JobMessage

# Each step delivers one more, or settles one of those that are open, or writes.
STEPS = st.lists(
    st.one_of(
        st.just(("deliver", 0)),
        st.tuples(st.sampled_from(["ack", "ack the older half", "reject"]), st.integers(0, 30)),
        st.just(("write", 0)),
    ),
    max_size=60,
)


class Broker:
    """What RabbitMQ knows of a channel: it closes one that acks a tag which is not open."""

    def __init__(self) -> None:
        self.open: list[int] = []
        self.acked: set[int] = set()

    def ack(self, tag: int, multiple: bool) -> None:
        assert tag in self.open
        meant = [each for each in self.open if each == tag or (multiple and each < tag)]
        self.acked.update(meant)
        self.open = [each for each in self.open if each not in meant]


@given(STEPS)
def test_rabbitmq_takes_exactly_what_was_acknowledged(steps: list[tuple[str, int]]) -> None:
    acks, broker, held = Acks(), Broker(), list[int]()
    acked, last = set[int](), 0

    def write() -> None:
        for tag, multiple in acks.take():
            broker.ack(tag, multiple)
        assert broker.acked == acked

    for what, which in steps:
        if what == "deliver":
            last += 1
            acks.delivered(last)
            broker.open.append(last)
            held.append(last)
        elif what == "write":
            write()
        elif what == "ack the older half":
            half = held[: len(held) // 2]
            acks.ack_all(half)
            acked.update(half)
            del held[: len(half)]
        elif held:
            tag = held.pop(which % len(held))
            if what == "ack":
                acks.ack(tag)
                acked.add(tag)
            else:
                # As the channel does it: what was collected goes first.
                write()
                acks.settled(tag)
                broker.open.remove(tag)
    write()
    assert set(broker.open) == set(held)


def test_a_hundred_in_order_are_one_frame() -> None:
    acks = Acks()
    for tag in range(1, 101):
        acks.delivered(tag)
    for tag in range(100, 0, -1):
        acks.ack(tag)
    assert acks.take() == [(100, True)]


def test_what_is_behind_an_open_one_is_acknowledged_by_itself() -> None:
    acks = Acks()
    for tag in range(1, 6):
        acks.delivered(tag)
    for tag in (1, 2, 4, 5):
        acks.ack(tag)
    assert acks.take() == [(2, True), (4, False), (5, False)]
    acks.ack(3)
    assert acks.take() == [(3, False)]


def channel(*, turns: bool) -> Any:
    found = CollectingChannel.__new__(CollectingChannel)
    found._acks, found.channel_id = Acks(), 1
    found.connection = SimpleNamespace(turns=turns, connected=True, bytes_sent=0, transport=Mock())
    return found


def test_messages_are_acknowledged_together_in_the_turn_of_a_loop_alone() -> None:
    messages = [SimpleNamespace(delivery_tag=tag, _state="RECEIVED") for tag in (1, 2, 3)]
    without = channel(turns=False)
    assert not without.ack_all(messages)
    assert {each._state for each in messages} == {"RECEIVED"}
    within = channel(turns=True)
    assert within.ack_all(messages)
    assert {each._state for each in messages} == {"ACK"}
    within.flush()
    (frame,) = within.connection.transport.write.call_args.args
    assert frame == b"\x01\0\x01\0\0\0\x0d\0\x3c\0\x50" + bytes(7) + b"\x03\x01\xce"
    lost = channel(turns=True)
    lost.connection = None
    assert not lost.ack_all(messages)


HEADERS: list[dict[str, Any]] = [{}, {"id": "a"}, {"compression": "zlib"}, {"compression": "none"}]


@pytest.mark.parametrize("headers", HEADERS, ids=str)
def test_a_message_is_what_kombu_makes_of_it(headers: dict[str, Any]) -> None:
    body = zlib.compress(b"body")
    properties = {"content_type": "text/plain", "priority": 4}
    raw = amqp.Message(body, application_headers=headers, **properties)
    raw.delivery_info = {"delivery_tag": 7, "consumer_tag": "tag"}
    for given_ in (raw, amqp.Message(b"")):
        given_.delivery_info = raw.delivery_info
        ours, theirs = JobMessage(given_, channel="c"), pyamqp.Message(given_, channel="c")
        slots = [name for name in kombu.Message.__slots__ if name != "__dict__"]
        for name in slots:
            assert getattr(ours, name) == getattr(theirs, name), name
        assert len(ours.errors) == len(theirs.errors)


def test_all_are_settled_by_tag_0() -> None:
    acks = Acks()
    for tag in (1, 2):
        acks.delivered(tag)
    acks.settled(0)
    acks.delivered(3)
    acks.ack(3)
    assert acks.take() == [(3, False)]
