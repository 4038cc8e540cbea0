"""Schedulers on a real RabbitMQ, with a clock that the test sets."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.connection import Address, connect
from broker.errors import AccessRefused, MissingOnBroker, TopologyError
from broker.management import Management
from broker.recurrence import text_of
from broker.topology import Topology
from broker.topology.token import Token
from consumers.schedule.report import leadership, lines
from consumers.schedule.scheduler import Scheduler, Stopped
from consumers.schedule.term import Term
from tests.provision import provision, ready_in, topology_of
from tests.rabbitmq import RabbitMQ
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
HOUR = 3600
# Half an hour past an hour.
BASE = 500_000 * HOUR + HOUR // 2

FILE = """
version: 1
name: {name}
vhost: {{name: unused, default_queue_type: quorum}}
exchanges:
  jobs: {{type: topic}}
  lost: {{type: topic}}
queues:
  jobs.normal: {{bindings: [{{exchange: jobs, routing_key: "normal.#"}}]}}
  jobs.full:
    bindings: [{{exchange: jobs, routing_key: "full.#"}}]
    max_length: 1
    overflow: reject-publish
jobs:
  normal: {{exchange: jobs, routing_key: normal.job, arguments: {{n: {{default: 0}}}}}}
  full: {{exchange: jobs, routing_key: full.job}}
  nowhere: {{exchange: jobs, routing_key: nowhere}}
  lost: {{exchange: lost, routing_key: lost}}
schedules:
{schedules}
"""
HOURLY = "  hourly: {job: normal, every: 1h, arguments: {n: 7}}"


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now_s = float(BASE)

    def __call__(self) -> float:
        return self.now_s


class Counts:
    """An observer that keeps what it was told."""

    def __init__(self) -> None:
        self.ticks: list[tuple[str, str]] = []
        self.skips: dict[str, int] = {}
        self.leading = threading.Event()

    def ticked(self, schedule: str, outcome: str, late_s: float) -> None:
        self.ticks.append((schedule, outcome))

    def skipped(self, schedule: str, count: int) -> None:
        self.skips[schedule] = self.skips.get(schedule, 0) + count

    def leads(self, leading: bool) -> None:
        (self.leading.set if leading else self.leading.clear)()

    def outcomes(self, schedule: str) -> list[str]:
        return [outcome for name, outcome in self.ticks if name == schedule]


class Place:
    """A virtual host, a folder for files, and a clock."""

    def __init__(self, address: Address, folder: Path) -> None:
        self.address = address
        self.folder = folder
        self.clock = Clock()

    def topology(self, *schedules: str, name: str = "shop") -> Topology:
        """Apply a file with these schedules."""
        text = FILE.format(name=name, schedules="\n".join(schedules))
        topology, _ = topology_of(self.folder, text)
        provision(topology, self.address)
        return topology

    @contextmanager
    def running(self, topology: Topology, *, leading: bool = True) -> Iterator[Counts]:
        """Run a scheduler until the end of the block."""
        counts = Counts()
        scheduler = Scheduler(topology, self.address, clock=self.clock, look_s=0.1, observer=counts)
        thread = threading.Thread(target=scheduler.run)
        thread.start()
        try:
            if leading:
                assert counts.leading.wait(20)
                self.known(topology)
            yield counts
        finally:
            scheduler.stop()
            thread.join(10)
        assert not thread.is_alive()

    def known(self, topology: Topology) -> None:
        """Wait until a leader has written a token that knows all schedules."""

        def written() -> bool:
            state = leadership(topology, self.address).state
            return state is not None and all(
                name in state.marks and state.marks[name].rule == schedule.recurrence.rule
                for name, schedule in topology.schedules.items()
            )

        until(written, timeout_s=20, what="the first token")

    def taken(self, queue: str = "jobs.normal") -> list[str]:
        """Take all messages of a queue; return their ids."""
        return [message.properties["message_id"] for message in self.messages(queue)]

    def messages(self, queue: str) -> list[Any]:
        connection = connect(self.address)
        try:
            channel = connection.default_channel
            found = []
            while (message := channel.basic_get(queue, no_ack=True)) is not None:
                found.append(message)
            return found
        finally:
            connection.release()


@pytest.fixture
def place(rabbitmq: RabbitMQ, vhost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    return Place(rabbitmq.address(vhost), tmp_path)


def hours(name: str, *numbers: int) -> list[str]:
    """Return the ids of the ticks of an hourly schedule, counted from `BASE`."""
    return [f"{name}@{text_of(BASE - HOUR // 2 + HOUR * number)}" for number in numbers]


def test_a_tick_is_a_job_like_any_other_with_an_id_of_its_own(place: Place) -> None:
    topology = place.topology(HOURLY)
    with place.running(topology) as counts:
        place.clock.now_s += HOUR
        until(lambda: counts.ticks, timeout_s=20, what="a tick")
    (message,) = place.messages("jobs.normal")
    headers = message.properties["application_headers"]
    assert [message.properties["message_id"]] == hours("hourly", 1)
    assert (headers["task"], headers["kwargsrepr"]) == ("normal", "{'n': 7}")
    assert message.properties["delivery_mode"] == 2


@pytest.mark.parametrize(
    ("catch_up", "ticks"), [("skip", []), ("latest", [5]), ("all", [2, 3, 4, 5])]
)
def test_what_falls_due_while_no_scheduler_runs_is_caught_up_by_the_rule(
    place: Place, catch_up: str, ticks: list[int]
) -> None:
    topology = place.topology(f"  hourly: {{job: normal, every: 1h, catch_up: {catch_up}}}")
    with place.running(topology) as counts:
        place.clock.now_s += HOUR - HOUR // 2
        until(lambda: counts.ticks, timeout_s=20, what="a tick")
    assert place.taken() == hours("hourly", 1)
    place.clock.now_s += 4 * HOUR + 60
    with place.running(topology) as counts:
        caught_up = (len(ticks), 4 - len(ticks))
        until(
            lambda: (len(counts.ticks), counts.skips.get("hourly", 0)) == caught_up,
            timeout_s=20,
            what="the rule to be followed",
        )
        place.clock.now_s += HOUR - 60
        until(lambda: len(counts.ticks) == len(ticks) + 1, timeout_s=20, what="the next tick")
    assert place.taken() == hours("hourly", *ticks, 6)


def test_a_schedule_begins_when_it_comes_and_anew_when_its_rule_changes(place: Place) -> None:
    with place.running(place.topology(HOURLY)):
        pass
    place.clock.now_s += 3 * HOUR
    topology = place.topology("  hourly: {job: normal, every: 2h, catch_up: all}")
    with place.running(topology) as counts:
        place.clock.now_s += HOUR
        until(lambda: counts.ticks, timeout_s=20, what="a tick")
    # Two hours' ticks are even; what the old rule owed is not caught up.
    assert place.taken() == hours("hourly", 4)


def test_what_cannot_be_routed_or_is_refused_holds_up_nobody(place: Place) -> None:
    topology = place.topology(
        HOURLY, "  full: {job: full, every: 1h}", "  nowhere: {job: nowhere, every: 1h}"
    )
    with place.running(topology) as counts:
        for turn in range(1, 5):
            place.clock.now_s += HOUR
            until(lambda turn=turn: len(counts.ticks) == 3 * turn, 20, "three ticks")
        found = leadership(topology, place.address)
        shown = {line.name: line.outcome for line in lines(topology, found)}
    assert place.taken() == hours("hourly", 1, 2, 3, 4)
    assert counts.outcomes("nowhere") == ["unroutable"] * 4
    # RabbitMQ lets a quorum queue grow a little past its length before it refuses.
    assert counts.outcomes("full")[-1] == "rejected"
    assert shown == {"hourly": "routed", "full": "rejected", "nowhere": "unroutable"}


def test_an_exchange_that_is_gone_holds_up_nobody(place: Place) -> None:
    topology = place.topology(HOURLY, "  lost: {job: lost, every: 1h}")
    with Management(place.address) as management:
        management.delete("exchanges", place.address.vhost_name, "lost")
    with place.running(topology) as counts:
        place.clock.now_s += HOUR
        until(lambda: len(counts.ticks) == 2, timeout_s=20, what="both ticks")
        place.clock.now_s += HOUR
        until(lambda: len(counts.ticks) == 4, timeout_s=20, what="the next ticks")
    assert counts.outcomes("lost") == ["unroutable"] * 2
    # RabbitMQ closed the channel over the first: that hour's tick may be there twice.
    assert sorted(set(place.taken())) == hours("hourly", 1, 2)


def test_two_topologies_in_one_virtual_host_lead_each_their_own(place: Place) -> None:
    shop, bank = place.topology(HOURLY), place.topology(HOURLY, name="bank")
    with place.running(shop) as ours, place.running(bank) as theirs:
        place.clock.now_s += HOUR
        until(lambda: ours.ticks and theirs.ticks, timeout_s=20, what="a tick of each")
    assert place.taken() == hours("hourly", 1, 1)


def test_one_leads_and_the_next_goes_on_where_it_stopped(place: Place) -> None:
    topology = place.topology(HOURLY)
    with place.running(topology, leading=False) as second:
        with place.running(topology, leading=False) as first:
            until(lambda: first.leading.is_set() or second.leading.is_set(), 20, "a leader")
            place.known(topology)
            place.clock.now_s += HOUR
            until(lambda: first.ticks or second.ticks, timeout_s=20, what="a tick")
            assert not (first.ticks and second.ticks)
        assert second.leading.wait(20)
        place.clock.now_s += HOUR
        until(lambda: len(first.ticks) + len(second.ticks) == 2, 20, "the second tick")
    assert place.taken() == hours("hourly", 1, 2)


def test_a_clock_that_is_set_back_repeats_ticks_under_their_ids(place: Place) -> None:
    topology = place.topology(HOURLY)
    with place.running(topology) as counts:
        place.clock.now_s += HOUR
        until(lambda: len(counts.ticks) == 1, timeout_s=20, what="a tick")
        place.clock.now_s -= HOUR
        # The token says that it was noticed.
        until(
            lambda: leadership(topology, place.address).state.marks["hourly"].done_s == BASE,
            timeout_s=20,
            what="the clock to be noticed",
        )
        place.clock.now_s += HOUR
        until(lambda: len(counts.ticks) == 2, timeout_s=20, what="the tick again")
    assert place.taken() == hours("hourly", 1, 1)


def test_a_queue_of_tokens_holds_one(place: Place) -> None:
    topology = place.topology(HOURLY)
    for _ in range(3):
        with place.running(topology):
            pass
    token = Token("shop")
    # The last leader may have gone before it dropped what it found.
    assert 1 <= ready_in(place.address, token.queue) <= 3
    assert ready_in(place.address, token.state) == 1


def test_the_role_of_a_scheduler_suffices(place: Place, rabbitmq: RabbitMQ) -> None:
    text = FILE.format(name="shop", schedules=HOURLY)
    user = f"scheduler-{place.address.vhost_name}"
    text += f"users: {{{user}: {{role: scheduler, password: none-such}}}}\nlint: {{ignore: []}}\n"
    topology, _ = topology_of(place.folder, text)
    provision(topology, place.address)
    mine = Address.parse(
        place.address.url.replace(place.address.url.split("@")[0], f"amqp://{user}:none-such"),
        management_url=rabbitmq.management_url,
    )
    admin, place.address = place.address, mine
    try:
        with place.running(topology) as counts:
            place.clock.now_s += HOUR
            until(lambda: counts.ticks, timeout_s=20, what="a tick")
            found = leadership(topology, mine)
            # It may not read the management API; who wrote last is in the token.
            assert found.schedulers is None
            assert found.leader is not None
    finally:
        place.address = admin
        with Management(admin) as management:
            management.delete("users", user)
    assert place.taken() == hours("hourly", 1)


def test_what_cannot_begin_says_why(place: Place) -> None:
    topology = place.topology(HOURLY)
    with Management(place.address) as management:
        management.delete("queues", place.address.vhost_name, "shop.schedule")
    with pytest.raises(MissingOnBroker, match=r"lacks the queue 'shop\.schedule'"):
        Scheduler(topology, place.address).run()
    wrong = Address.parse(place.address.url.replace(place.address.password, "wrong"))
    with pytest.raises(AccessRefused):
        Scheduler(topology, wrong).run()
    without, _ = topology_of(place.folder, FILE.format(name="shop", schedules=""))
    with pytest.raises(TopologyError, match="nothing to schedule"):
        Scheduler(without, place.address)


def test_a_leader_that_dies_before_its_mark_leaves_the_tick_to_the_next(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    topology = place.topology(HOURLY)
    with place.running(topology) as counts:
        monkeypatch.setattr(Term, "write", die)
        place.clock.now_s += HOUR
        until(lambda: counts.ticks and not counts.leading.is_set(), 20, "its end")
    monkeypatch.undo()
    with place.running(topology) as counts:
        until(lambda: counts.ticks, timeout_s=20, what="the tick again")
    assert place.taken() == hours("hourly", 1, 1)


def test_a_leader_that_dies_before_it_drops_the_old_token_leaves_no_doubt(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    topology = place.topology(HOURLY)
    with place.running(topology) as counts:
        monkeypatch.setattr(Term, "drop", die)
        place.clock.now_s += HOUR
        until(lambda: counts.ticks and not counts.leading.is_set(), 20, "its end")
    monkeypatch.undo()
    with place.running(topology) as counts:
        place.clock.now_s += HOUR
        until(lambda: counts.ticks, timeout_s=20, what="the next tick")
    assert place.taken() == hours("hourly", 1, 2)


def die(*_: object) -> None:
    raise Stopped


def test_a_binding_that_is_gone_is_told(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    topology = place.topology(HOURLY)
    with Management(place.address) as management:
        management.delete("exchanges", place.address.vhost_name, "shop.schedule")
        body = {"type": "direct", "durable": True}
        management.put("exchanges", place.address.vhost_name, "shop.schedule", body=body)
    with place.running(topology, leading=False) as counts:
        until(lambda: "check the bindings" in caplog.text, timeout_s=20, what="a word about it")
        provision(topology, place.address)
        assert counts.leading.wait(20)


@pytest.mark.parametrize("answers", [True, False], ids=["silent", "closed"])
def test_who_cannot_reach_rabbitmq_waits_and_stops_when_told(answers: bool, tmp_path: Path) -> None:
    topology, _ = topology_of(tmp_path, FILE.format(name="shop", schedules=HOURLY))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if not answers:
            server.close()
        scheduler = Scheduler(topology, Address.parse(f"amqp://127.0.0.1:{port}/"))
        thread = threading.Thread(target=scheduler.run)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        scheduler.stop()
        thread.join(1)
        assert not thread.is_alive()


def test_the_file_of_the_how_to_is_in_order(place: Place) -> None:
    text = (ROOT / "docs" / "how-to" / "schedules.md").read_text()
    file = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert file is not None
    topology, _ = topology_of(place.folder, file[1])
    provision(topology, place.address)
    with place.running(topology) as counts:
        place.clock.now_s += 5
        until(lambda: counts.ticks, timeout_s=20, what="a heartbeat")
    assert counts.ticks == [("heartbeat", "routed")]
    found = lines(topology, leadership(topology, place.address))
    recurs = {line.name: line.recurs for line in found}
    assert recurs == {"heartbeat": "every 5s", "weekly": "cron 3 17 * * sun Europe/Paris"}
