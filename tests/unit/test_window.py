"""The window bounds what is under way, in messages and in bytes."""

from __future__ import annotations

import pytest

from broker.confirmed import ConfirmedChannel
from broker.connection import Address
from broker.errors import OutcomeUnknown
from broker.frames import LargeContent
from broker.receipt import ROUTED, Receipt
from broker.window import WINDOW_BYTES, Window

NOBODY = Address.parse("amqp://guest:guest@127.0.0.1:1/")


def under_way(window: Window, size_bytes: int) -> Receipt:
    content = LargeContent(b"", b"x" * size_bytes)
    receipt = Receipt(
        None,  # type: ignore[arg-type]
        "id",
        content,
        exchange="",
        routing_key="q",
        deadline=0.0,
        started=0.0,
    )
    with window.lock:
        window.take(receipt)
    return receipt


@pytest.mark.parametrize("sizes", [[1, 1, 1], [60, 60], [101]], ids=str)
def test_it_is_full_of_messages_or_of_bytes_until_they_end(sizes: list[int]) -> None:
    window = Window(3, 100, None)
    receipts: list[Receipt] = []
    for size in sizes:
        assert not window.full
        receipts.append(under_way(window, size))
    assert window.full
    window.end_routed(receipts[:1])
    assert not window.full
    window.end_each([(receipt, ROUTED) for receipt in receipts])
    assert (window.open, window.open_bytes) == (0, 0)


def test_who_publishes_large_messages_waits_before_memory_is_full_of_them() -> None:
    channel = ConfirmedChannel(NOBODY)
    content = LargeContent(b"", b"x" * (WINDOW_BYTES // 8))
    receipts = [
        channel.send(content, message_id=str(n), exchange="", routing_key="q", timeout_s=60)
        for n in range(8)
    ]
    assert not channel.has_room
    late = channel.send(content, message_id="late", exchange="", routing_key="q", timeout_s=0.1)
    with pytest.raises(OutcomeUnknown, match=r"127\.0\.0\.1"):
        late.wait()
    channel.close(timeout_s=0)
    assert all(receipt.done for receipt in receipts)
    assert channel.has_room is False  # closed
