"""Order within a job's name, whatever RabbitMQ answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broker.errors import MessageTooLarge, OutcomeUnknown, Rejected, Unroutable
from broker.receipt import Routed
from producers.outbox import sender as sender_module
from producers.outbox.file import OutboxFile
from producers.outbox.sender import REFUSALS_BEFORE_ASIDE, Sender
from tests.unit.test_outbox_file import stored

WHERE: dict[str, Any] = {"exchange": "jobs", "routing_key": "key"}


class Sent:
    """A receipt whose end the test decides."""

    def __init__(self, id: str) -> None:
        self.message_id = id
        self.outcome: Any = None
        self._callback: Callable[[Any], None] | None = None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callback = callback

    def end(self, outcome: Any) -> None:
        self.outcome = outcome
        assert self._callback is not None
        self._callback(self)


class Channel:
    """Notes what is sent, in order."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []

    def publish(self, message: Any, **_: Any) -> Sent:
        if message.id == "huge":
            raise MessageTooLarge(size_bytes=20, limit_bytes=10)
        self.sent.append(Sent(message.id))
        return self.sent[-1]

    def take(self) -> list[Sent]:
        sent, self.sent = self.sent, []
        return sent


class Bench:
    """A file, a sender and what it sends to; a clock that stands still."""

    def __init__(self, path: Any, **options: Any) -> None:
        self.file = OutboxFile(path)
        self.channel = Channel()
        self.sender = Sender(self.file, self.channel, wake=lambda: None, **options)  # type: ignore[arg-type]

    def accept(self, *jobs: tuple[str, str]) -> None:
        self.file.write([stored(id, name).values() for id, name in jobs])

    def turn(self) -> list[Sent]:
        """Write what has ended, send what may be sent; return what was."""
        routed, refused = self.sender.take_settled()
        self.file.write(routed=routed, refused=[refusal for refusal, _ in refused])
        self.sender.send()
        return self.channel.take()


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Bench:
    monkeypatch.setattr(sender_module, "RETRY_FIRST_S", 0.0)
    monkeypatch.setattr(sender_module, "HOPELESS_S", 0.0)
    return Bench(tmp_path / "outbox")


def ids(sent: list[Sent]) -> list[str]:
    return [each.message_id for each in sent]


def routed(sent: Sent) -> None:
    sent.end(Routed(sent.message_id, **WHERE))


def rejected(sent: Sent) -> None:
    sent.end(Rejected(message_id=sent.message_id, **WHERE))


def test_everything_is_sent_once_and_taken_out_when_it_is_routed(bench) -> None:
    bench.accept(("1", "a"), ("2", "b"), ("3", "a"))
    first = bench.turn()
    assert ids(first) == ["1", "2", "3"]
    bench.accept(("4", "a"))
    assert ids(bench.turn()) == ["4"]
    for each in first:
        routed(each)
    assert bench.turn() == []
    assert bench.file.counts()["waiting"] == 1


def test_after_a_refusal_a_name_goes_one_at_a_time_and_others_go_on(bench) -> None:
    bench.accept(("1", "a"), ("2", "a"), ("3", "a"))
    one, two, three = bench.turn()
    rejected(one)
    rejected(two)
    bench.accept(("4", "a"), ("5", "b"))
    # The third is still on its way: nothing more of its name until it has ended.
    assert ids(bench.turn()) == ["5"]
    rejected(three)
    for expected in ("1", "2", "3"):
        [sent] = bench.turn()
        assert sent.message_id == expected
        routed(sent)
    assert ids(bench.turn()) == ["4"]


def test_a_poison_is_set_aside_and_its_name_goes_on(bench) -> None:
    bench.accept(("poison", "a"))
    for _ in range(REFUSALS_BEFORE_ASIDE):
        [sent] = bench.turn()
        sent.end(Unroutable(message_id="poison", reply_code=312, reply_text="NO_ROUTE", **WHERE))
        bench.accept(("next", "a"))
    assert ids(bench.turn()) == ["next"]
    [row] = bench.file.refused()
    assert (row.id, row.state, row.outcome, row.reason) == (
        *("poison", "aside", "unroutable"),
        "312 NO_ROUTE",
    )


def test_a_message_that_cannot_be_sent_at_all_is_set_aside_at_once(bench) -> None:
    bench.accept(("huge", "a"), ("2", "a"))
    assert ids(bench.turn()) == ["2"]
    assert bench.turn() == []
    assert "10" in (bench.file.refused()[0].reason or "")


def test_what_nobody_knows_of_is_sent_again_when_all_else_has_ended(bench) -> None:
    bench.accept(("1", "a"), ("2", "a"), ("3", "b"))
    one, two, three = bench.turn()
    one.end(OutcomeUnknown(message_id="1", sent=True, reason="lost", **WHERE))
    bench.accept(("4", "a"))
    assert bench.turn() == []
    two.end(OutcomeUnknown(message_id="2", sent=False, reason="lost", **WHERE))
    routed(three)
    assert ids(bench.turn()) == ["1", "2", "4"]


def test_in_order_lets_none_overtake(tmp_path) -> None:
    bench = Bench(tmp_path / "outbox", in_order=True)
    bench.accept(("1", "a"), ("2", "a"), ("3", "b"), ("4", "b"))
    first = bench.turn()
    assert ids(first) == ["1", "3"]
    routed(first[0])
    assert ids(bench.turn()) == ["2"]


def test_one_shot_leaves_a_refused_name_alone(tmp_path) -> None:
    bench = Bench(tmp_path / "outbox", one_shot=True)
    bench.accept(("1", "a"), ("2", "b"))
    one, two = bench.turn()
    rejected(one)
    routed(two)
    bench.accept(("3", "a"), ("4", "b"))
    assert ids(bench.turn()) == ["4"]
    assert bench.sender.refused_names == {"a"}


def test_a_routed_job_that_could_not_be_taken_out_is_not_sent_again(bench) -> None:
    bench.accept(("1", "a"))
    [one] = bench.turn()
    routed(one)
    taken, refused = bench.sender.take_settled()
    bench.sender.give_back(taken, refused)
    bench.sender._cursor = 0
    bench.sender.send()
    assert bench.channel.take() == []
    assert bench.turn() == []
    assert bench.file.counts()["waiting"] == 0
