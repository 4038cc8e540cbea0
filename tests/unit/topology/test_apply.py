"""What apply tells when RabbitMQ goes away in the middle."""

from __future__ import annotations

from typing import Any, cast

from broker.errors import Interrupted, Unreachable
from broker.management import Management
from broker.topology.apply import make_changes
from broker.topology.compile import compile_topology
from broker.topology.objects import Observed
from broker.topology.plan import Plan, make_plan
from tests.unit.topology.samples import topology


class Vanishing:
    """A management API that stops answering after a number of requests."""

    def __init__(self, answers: int) -> None:
        self.answers = answers
        self.exchanges: list[dict[str, Any]] = []

    def _count(self) -> None:
        if not self.answers:
            raise Unreachable("nobody answers")
        self.answers -= 1

    def get(self, *segments: str, **query: Any) -> Any:
        self._count()
        return {
            "vhosts": [{"name": "/", "default_queue_type": "quorum"}],
            "exchanges": self.exchanges,
        }[segments[0]]

    def put(self, *segments: str, body: Any = None) -> None:
        self._count()
        if segments[0] == "exchanges":
            self.exchanges.append({"name": segments[2], **body})


def plan() -> Plan:
    found = topology(exchanges={"a": {"type": "topic"}, "b": {"type": "topic"}}, queues={"q": None})
    return make_plan(compile_topology(found), Observed("4.3.6", "/", {}))


def run(answers: int) -> tuple[list[str], list[str], list[str]]:
    outcome = make_changes(plan(), cast(Management, Vanishing(answers)))
    assert isinstance(outcome.error, Unreachable)
    return (
        [str(change.identity) for change in outcome.done],
        [str(each.change.identity) for each in outcome.failed],
        [str(change.identity) for change in outcome.not_done],
    )


def test_a_write_that_fails_ends_it_with_an_account() -> None:
    # PUT vhost, GET vhosts, PUT a | PUT b fails, and so does reading back.
    done, failed, not_done = run(3)
    assert done == ["virtual host '/'"]
    assert sorted(failed) == ["exchange 'a'", "exchange 'b'"]
    assert not_done == ["queue 'q'"]


def test_what_cannot_be_read_back_is_not_called_done() -> None:
    done, failed, not_done = run(4)
    assert done == ["virtual host '/'"]
    assert failed == ["exchange 'a'", "exchange 'b'"]
    assert not_done == ["queue 'q'"]


def test_later_stages_are_not_tried() -> None:
    done, failed, not_done = run(5)
    assert done == ["virtual host '/'", "exchange 'a'", "exchange 'b'"]
    assert failed == ["queue 'q'"]
    assert not_done == []


def test_who_stops_it_gets_an_account() -> None:
    class Stopped(Vanishing):
        def put(self, *segments: str, body: Any = None) -> None:
            if self.exchanges:
                raise KeyboardInterrupt
            super().put(*segments, body=body)

    outcome = make_changes(plan(), cast(Management, Stopped(100)))
    assert isinstance(outcome.error, Interrupted)
    assert [str(change.identity) for change in outcome.done] == ["virtual host '/'", "exchange 'a'"]
    left = [str(change.identity) for change in outcome.not_done]
    assert left == ["exchange 'b'", "queue 'q'"]
