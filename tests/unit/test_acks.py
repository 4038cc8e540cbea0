"""What is acknowledged together is exactly what was acknowledged, whatever was settled between."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumers.acks import Acks

# Each step delivers one more, or settles one of those that are open, or writes.
STEPS = st.lists(
    st.one_of(
        st.just(("deliver", 0)),
        st.tuples(st.sampled_from(["ack", "reject"]), st.integers(0, 30)),
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


def test_all_are_settled_by_tag_0() -> None:
    acks = Acks()
    for tag in (1, 2):
        acks.delivered(tag)
    acks.settled(0)
    acks.delivered(3)
    acks.ack(3)
    assert acks.take() == [(3, False)]
