"""Whatever happens to RabbitMQ, every message is accounted for."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from broker.management import Management
from broker.window import WINDOW
from tests.faults.conftest import Ground
from tests.faults.ledger import Entry, Ledger
from tests.faults.producer import Producer
from tests.faults.troubles import Trouble, alarm, death, silence


@contextmanager
def restarted(ground: Ground) -> Iterator[None]:
    ground.hurt.stop()
    yield
    ground.hurt.start()


@contextmanager
def paused(ground: Ground) -> Iterator[None]:
    with silence(ground):
        yield
        # How long the fault lasts.
        threading.Event().wait(10)


@contextmanager
def closed(ground: Ground) -> Iterator[None]:
    ground.close_connections()
    yield
    ground.close_connections()


@contextmanager
def filled(ground: Ground) -> Iterator[None]:
    yield


@contextmanager
def undeclared(ground: Ground) -> Iterator[None]:
    vhost = ground.address.vhost_name
    with Management(ground.address) as management:
        management.delete("exchanges", vhost, "side")
        yield
        management.put("exchanges", vhost, "side", body={"type": "topic", "durable": True})
        management.post(
            *("bindings", vhost, "e", "side", "q", "jobs.side"), body={"routing_key": "#"}
        )


QUICK: dict[str, tuple[Trouble, str]] = {
    "killed": (death, "normal"),
    "alarm": (alarm, "normal"),
    "closed": (closed, "normal"),
    "full": (filled, "tiny"),
    "exchange-gone": (undeclared, "side"),
}
ALL: dict[str, tuple[Trouble, str]] = {
    **QUICK,
    "restarted": (restarted, "normal"),
    "paused": (paused, "normal"),
}


def ledger_under(
    faults: dict[str, tuple[Trouble, str]], ground: Ground, *, jobs: int, threads: int
) -> Ledger:
    """Publish through one fault after the other; return the ledger, closed and checked."""
    share = jobs // len(faults)
    # So many are handed over while the fault lasts, in steps; the window holds them all.
    steps, step = 20, min(share // 4, (WINDOW - share // 2) // 2) // 20
    with Producer(ground.path, ground.address, ground.folder, threads=threads) as producer:
        for name, (fault, job) in faults.items():
            before = producer.allowed
            producer.settle()
            ground.wait_connected()
            # The fault comes while these are under way.
            producer.allow(name, job, share // 2)
            producer.wait_handed_over(before + share // 10)
            with fault(ground):
                producer.wait_handed_over(producer.allowed)
                for _ in range(steps):
                    producer.allow(name, job, step)
                    producer.wait_handed_over(producer.allowed)
            producer.allow(name, job, before + share - producer.allowed)
            producer.wait_handed_over(producer.allowed)
        producer.finish()
        allowed = producer.allowed
    ledger = Ledger.close(producer.account, ground.address, ground.queues)
    sys.stdout.write(f"\n{ledger.table()}\n")
    problems = ledger.problems(jobs=allowed, window=WINDOW)
    assert not problems, "\n".join([ledger.table(), f"{len(problems)} problems:", *problems[:20]])
    return ledger


def test_a_ledger_finds_what_does_not_add_up() -> None:
    def entry(id: str, outcome: str, *, sent: bool = True, redelivered: bool = False) -> Entry:
        return Entry(id, outcome, sent, redelivered, "", 0.1)

    entries = [
        entry("a-fine", "Routed"),
        entry("a-lost", "Routed"),
        entry("a-twice", "Routed"),
        entry("a-twice-explained", "Routed", redelivered=True),
        entry("a-refused", "Rejected"),
        entry("a-refused-the-second-time", "Rejected", redelivered=True),
        entry("a-unsent", "OutcomeUnknown", sent=False),
        *(entry(f"b-{number}", "OutcomeUnknown") for number in range(3)),
    ]
    there = ["a-fine", "a-refused", "a-refused-the-second-time", "a-unsent", "a-stranger", "b-1"]
    ledger = Ledger(entries, [*there, *2 * ["a-twice"], *2 * ["a-twice-explained"]])
    problems = ledger.problems(jobs=len(entries) + 1, window=2)
    for what in (
        "a-lost",
        "a-twice'",
        "a-refused'",
        "a-refused-the-second-time",
        "a-unsent",
        "a-stranger",
        "fault b",
        "11 jobs",
    ):
        assert any(what in problem for problem in problems), what
    assert len(problems) == 8, problems
    assert not Ledger(entries[:1], ["a-fine"]).problems(jobs=1, window=2)


def test_two_thousand_jobs_are_accounted_for_under_faults(ground: Ground) -> None:
    ledger = ledger_under(QUICK, ground, jobs=2000, threads=0)
    check_what_each_fault_did(ledger)


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("threads", [0, 4], ids=["publish_many", "four threads"])
def test_twenty_thousand_jobs_are_accounted_for_under_faults(
    ground: Ground, threads: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():  # the table belongs into the log of a long run
        ledger = ledger_under(ALL, ground, jobs=20_000, threads=threads)
    check_what_each_fault_did(ledger)


def check_what_each_fault_did(ledger: Ledger) -> None:
    """See that the faults were felt, and that each ended as it must."""
    outcomes = {leg: {entry.outcome for entry in ledger.of(leg)} for leg in ledger.legs}
    # Outages are shorter than the deadline: nothing ends as unknown.
    for leg in ("killed", "restarted", "paused", "alarm", "closed"):
        assert outcomes.get(leg, {"Routed"}) == {"Routed"}, (leg, ledger.table())
    assert outcomes["full"] == {"Routed", "Rejected"}
    refused = [entry for entry in ledger.of("full") if entry.outcome == "Rejected"]
    assert all("jobs.tiny" in entry.reason for entry in refused), refused[0]
    # What was under way when it went may have been routed before; the others know.
    gone = outcomes["exchange-gone"]
    assert gone - {"OutcomeUnknown"} == {"Routed", "Unroutable"}
    # What was handed over during the outage had to wait for its end.
    assert max(entry.seconds for entry in ledger.of("killed")) > 1
