"""When and where delayed jobs go, without a RabbitMQ."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from broker.body import encode
from broker.contracts import Job, contract_of
from broker.delays import Delays, rungs_for, wait_header, wait_s, without_traces
from broker.errors import InvalidDelay
from broker.message import Message
from broker.topology import Topology
from broker.topology.compile import compile_topology
from broker.topology.diagram import drawing
from broker.topology.export import Scope, export
from broker.topology.lint import check
from broker.topology.objects import BINDING, EXCHANGE, PERMISSION, QUEUE, Identity
from broker.topology.ownership import Record, Records
from broker.topology.roles import rights_of
from broker.topology.route import Router
from consumers.delays import due_of
from producers.delays import delayed_message

BASE: dict[str, Any] = {
    "version": 1,
    "name": "shop",
    "exchanges": {"jobs": {"type": "topic"}, "spread": {"type": "x-consistent-hash"}},
    "queues": {
        "orders": {"bindings": [{"exchange": "jobs", "routing_key": "#.orders"}]},
        "eu": {"bindings": [{"exchange": "jobs", "routing_key": "eu.#"}]},
        "log": {"type": "stream", "bindings": [{"exchange": "spread", "routing_key": "1"}]},
    },
    "jobs": {
        "place": {"exchange": "jobs", "routing_key": "eu.orders", "deadline": timedelta(minutes=1)},
        "lost": {"exchange": "jobs", "routing_key": "nowhere"},
        "spread": {"exchange": "spread"},
    },
    "workers": {"one": {"queues": ["orders"]}},
    "users": {
        "web": {"role": "producer"},
        "runner": {"role": "worker"},
        "ops": {"role": "provisioner"},
    },
}


def shop(**delays: Any) -> Topology:
    return Topology.model_validate({**BASE, "delays": delays})


def message(**headers: Any) -> Message:
    return Message("one", encode([[], {}, {}]), headers, {"priority": 7, "expiration": "2000"})


@given(st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=90)))
def test_the_rungs_reach_the_longest_delay_and_not_twice_as_far(longest: timedelta) -> None:
    rungs = rungs_for(longest)
    seconds = math.ceil(longest.total_seconds())
    assert sum(rungs) >= seconds
    assert rungs[-1] <= seconds


@given(st.floats(min_value=0.001, max_value=3600))
def test_a_message_goes_down_the_ladder_for_its_delay_and_out_where_it_should(delay: float) -> None:
    topology = shop(max=timedelta(hours=1))
    delays = Delays(topology)
    queues = delays.queues_of("jobs", "eu.orders")
    made, exchange = delays.ladder.delayed(message(), wait_s=delay, queues=queues)
    router = Router(compile_topology(topology, secrets=False).objects)
    waited = seen = 0
    while True:
        # From rung to rung as RabbitMQ routes it, by the same headers all the way.
        found = router.route(exchange, "eu.orders", made.headers)
        rung = [each for each in found.queues if each.startswith("shop.delays.")]
        if not rung:
            break
        assert found.queues == (rung[0],)
        waited += int(rung[0].removeprefix("shop.delays.").removesuffix("s"))
        letter = found.landings[0].letter
        assert letter is not None
        exchange, seen = letter.exchange, seen + 1
        assert seen < 20
    assert found.queues == queues == ("eu", "orders")
    assert delay <= waited < delay + 1
    assert "expiration" not in made.properties
    assert made.properties["priority"] == 7


def test_nothing_of_an_earlier_delay_is_left() -> None:
    ladder = Delays(shop(max=timedelta(seconds=10))).ladder
    first, _ = ladder.delayed(message(id="x"), wait_s=5, queues=("eu",))
    stale = {**first.headers, "x-death": [1], wait_header(64): True, "x-delivery-count": 2}
    again, _ = ladder.delayed(message(**stale), wait_s=2, queues=("orders",))
    fresh, _ = ladder.delayed(message(id="x"), wait_s=2, queues=("orders",))
    assert again.headers == fresh.headers
    assert without_traces(again.headers) == {"id": "x"}


def test_a_delay_or_a_time_with_its_zone() -> None:
    now = 1_000_000.25
    later = datetime.fromtimestamp(now + 5, UTC)
    assert wait_s(delay_s=2.5, eta=None, now_s=now, what="it") == 2.5
    assert wait_s(delay_s=None, eta=later, now_s=now, what="it") == pytest.approx(5)
    assert wait_s(delay_s=None, eta=later - timedelta(days=1), now_s=now, what="it") == 0
    for wrong in (-1, math.nan, math.inf, True, "5"):
        with pytest.raises(InvalidDelay, match="it"):
            wait_s(delay_s=wrong, eta=None, now_s=now, what="it")  # type: ignore[arg-type]
    for naive in (datetime(2030, 1, 1), "2030-01-01T00:00Z"):
        with pytest.raises(InvalidDelay, match="time zone"):
            wait_s(delay_s=None, eta=naive, now_s=now, what="it")  # type: ignore[arg-type]


def test_what_cannot_be_delayed_says_what_to_do() -> None:
    without = Topology.model_validate(BASE)
    topology = shop(max=timedelta(minutes=1), queues=["orders"])

    def delayed(of: Topology, name: str, wait: float, **options: Any) -> Message:
        job = Job(name, **options)
        delays, contract = Delays(of), contract_of(of, name)
        return delayed_message(delays, contract, job, wait=wait, now_s=1e9)[0]

    with pytest.raises(InvalidDelay, match=r"has no delays; add `delays: \{max: 30d\}`"):
        delayed(without, "place", 1)
    with pytest.raises(InvalidDelay, match="'eu', which is not one of"):
        delayed(topology, "place", 1)
    full = shop(max=timedelta(minutes=1))
    with pytest.raises(InvalidDelay, match="2m, longer than the 1m"):
        delayed(full, "place", 120)
    with pytest.raises(InvalidDelay, match="reach no queue"):
        delayed(full, "lost", 1)
    with pytest.raises(InvalidDelay, match="x-consistent-hash"):
        delayed(full, "spread", 1)
    with pytest.raises(InvalidDelay, match="deadline of 5 s"):
        delayed(full, "place", 10, deadline_s=5)
    # The contract's own deadline counts from when the job is due.
    made = delayed(full, "place", 30)
    assert made.headers["rabbitry-deadline"] == (1e9 + 30 + 60) * 1000
    assert made.headers["eta"] == datetime.fromtimestamp(1e9 + 30, UTC).isoformat()


def test_the_longest_delay_has_its_limits() -> None:
    for wrong in (timedelta(milliseconds=1), timedelta(days=91)):
        with pytest.raises(ValidationError, match="from 1s to 90d"):
            shop(max=wrong)
    assert Delays(shop()).ladder.longest == timedelta(days=30)
    assert len(Delays(shop()).ladder.rungs) == 22


def test_streams_are_led_to_only_where_the_file_says_so() -> None:
    assert Delays(shop()).ladder.queues == {"orders", "eu"}
    assert Delays(shop(queues=["log"])).ladder.queues == {"log"}


def test_a_queue_that_the_file_has_not_is_an_error() -> None:
    found = [each for each in check(shop(queues=["order"])) if each.rule == "unknown-queue"]
    assert [each.path for each in found] == [("delays", "queues", 0)]
    assert "did you mean 'orders'" in found[0].text


def retrying(*, requires: str | None, delays: dict[str, Any] | None = None) -> Topology:
    queues = {
        **BASE["queues"],
        "orders": {"retry": {"delay": "200ms", "max_delay": "10s"}},
        "eu": {"retry": {"delay": "3s"}},
        "old": {"type": "classic"},
    }
    document = {**BASE, "broker": {"requires": requires}, "queues": queues}
    return Topology.model_validate(document if delays is None else {**document, "delays": delays})


def ladder_in(topology: Topology, version: str | None = None) -> tuple[set[str], set[str]]:
    """Return the queues that are rungs, and those that the ladder leads to."""
    objects = compile_topology(topology, version=version, secrets=False).objects
    rungs = {
        identity.name[0].removeprefix("shop.delays.")
        for identity in objects
        if identity.kind == QUEUE and identity.name[0].startswith("shop.delays.")
    }
    ends = {
        identity.name[2]
        for identity in objects
        if identity.kind == BINDING and identity.name[0] == "shop.delays.due"
    }
    return rungs - {"lost"}, ends


def test_where_rabbitmq_delays_no_retry_there_is_a_ladder_for_them() -> None:
    for requires, version in (("4.3", "4.3.6"), (None, "4.3.6"), (None, None)):
        assert ladder_in(retrying(requires=requires), version) == (set(), set())
    for requires, version in (("4.0", "4.0.5"), ("4.0", "4.3.6"), (None, "4.2.1")):
        found = ladder_in(retrying(requires=requires), version)
        assert found == ({"1s", "2s", "4s", "8s"}, {"orders", "eu"})
    # It is no leave to delay jobs.
    with pytest.raises(InvalidDelay, match="has no delays"):
        _ = Delays(retrying(requires="4.0")).ladder


def test_one_ladder_serves_delays_and_retries() -> None:
    short = retrying(requires="4.0", delays={"max": "2s", "queues": ["eu"]})
    assert ladder_in(short) == ({"1s", "2s", "4s", "8s"}, {"orders", "eu"})
    assert Delays(short).ladder.longest == timedelta(seconds=2)
    long = retrying(requires="4.0", delays={"max": "20s", "queues": ["old"]})
    assert ladder_in(long) == ({"1s", "2s", "4s", "8s", "16s"}, {"orders", "eu", "old"})
    assert ladder_in(retrying(requires="4.3", delays={"max": "2s", "queues": ["eu"]})) == (
        {"1s", "2s"},
        {"eu"},
    )


def test_workers_may_write_where_what_failed_waits() -> None:
    for version, rungs in (("4.0.5", r"|shop\.delays\.[0-9]+s"), ("4.3.6", "")):
        topology = retrying(requires=None)
        web, runner, ops = (
            rights_of(topology, topology.users[name], requires=version)
            for name in ("web", "runner", "ops")
        )
        assert None not in (web, runner, ops)
        assert runner.write == rf"^(amq\.default{rungs})$"
        assert web.write == r"^(jobs|shop\.cancellations|spread)$"
        assert ("delays" in ops.configure) == bool(rungs)
        objects = compile_topology(topology, version=version, secrets=False).objects
        assert objects[Identity(PERMISSION, ("runner",))].attributes["write"] == runner.write


def test_a_diagram_draws_a_ladder_for_retries_as_one() -> None:
    topology = retrying(requires="4.0")
    found = drawing(topology, compile_topology(topology, secrets=False).objects)
    ladder = [each for each in found.nodes if "delays" in each.name]
    assert [(each.shape, each.detail) for each in ladder] == [(EXCHANGE, "delays up to 10s")]


def test_an_export_of_a_ladder_for_retries_is_one_of_delays() -> None:
    wanted = compile_topology(retrying(requires="4.0"), secrets=False).objects
    scope = Scope("shop", Records(Record("shop", "/")))
    document = export(wanted, scope=scope, vhost="/").document
    assert document["delays"] == {"max": "15s", "queues": ["eu", "orders"]}


def test_the_names_of_a_ladder_are_reserved() -> None:
    with pytest.raises(ValidationError, match=r"shop\.delays\.1s.*reserved"):
        Topology.model_validate(
            {
                **BASE,
                "broker": {"requires": "4.0"},
                "queues": {**BASE["queues"], "shop.delays.1s": {"retry": {"delay": "1s"}}},
            }
        )
    with pytest.raises(ValidationError, match=r"shop\.delays\.1s.*reserved"):
        Topology.model_validate({**BASE, "queues": {"shop.delays.1s": {}}, "delays": {}})


def test_roles_may_write_to_its_rungs_and_to_nothing_else_of_it() -> None:
    topology = shop(max=timedelta(minutes=1))
    web, runner, ops = (rights_of(topology, topology.users[n]) for n in ("web", "runner", "ops"))
    assert None not in (web, runner, ops)
    assert web.write == r"^(jobs|shop\.cancellations|spread|shop\.delays\.[0-9]+s)$"
    assert runner.write == r"^(amq\.default|shop\.delays\.[0-9]+s)$"
    assert runner.read == r"^(orders|shop\.cancellations)$"
    for right in (ops.configure, ops.write, ops.read):
        assert r"shop\.delays\..*" in right


@pytest.mark.parametrize("queues", [None, ["orders"]])
@pytest.mark.parametrize("longest", ["1s", "1m", "5h", "30d", "90d"])
def test_an_export_says_it_as_the_file_does(longest: str, queues: list[str] | None) -> None:
    from broker.units import parse_duration

    topology = shop(max=parse_duration(longest), queues=queues)
    wanted = compile_topology(topology, secrets=False).objects
    scope = Scope("shop", Records(Record("shop", "/")))
    document = export(wanted, scope=scope, vhost="/").document
    assert not [name for name in document["queues"] if name.startswith("shop.delays")]
    again = dict(document["delays"])
    again["max"] = parse_duration(again["max"])
    other = Topology.model_validate({**BASE, "delays": again})
    assert compile_topology(other, secrets=False).objects == wanted


def test_a_ladder_that_somebody_changed_is_exported_as_it_is() -> None:
    wanted = dict(compile_topology(shop(max=timedelta(minutes=1)), secrets=False).objects)
    del wanted[Identity(QUEUE, ("shop.delays.8s",))]
    scope = Scope("shop", Records(Record("shop", "/")))
    document = export(wanted, scope=scope, vhost="/").document
    assert "delays" not in document
    assert "shop.delays.4s" in document["queues"]


def test_a_diagram_draws_it_as_one() -> None:
    topology = shop()
    found = drawing(topology, compile_topology(topology, secrets=False).objects)
    ladder = [each for each in found.nodes if "delays" in each.name]
    assert [(each.shape, each.detail) for each in ladder] == [(EXCHANGE, "delays up to 30d")]


def test_celerys_eta_is_read_as_celery_writes_it() -> None:
    assert due_of({"eta": "2030-01-01T00:00:00+00:00"}, UTC) == 1893456000
    assert due_of({"eta": "2030-01-01T00:00:00"}, UTC) == 1893456000
    for none in (None, {}, {"eta": None}, {"eta": "soon"}, {"eta": 5}):
        assert due_of(none, UTC) is None
