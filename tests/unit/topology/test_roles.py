"""What each role comes to, and that it is no more than that."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.reply_queue import new_name
from broker.topology import Topology
from broker.topology.compile import compile_topology
from broker.topology.objects import PERMISSION, USER, Identity
from broker.topology.roles import Rights, rights_of
from tests.unit.topology.samples import names

BASE = {
    "version": 1,
    "name": "t",
    "exchanges": {
        "jobs": {"type": "topic"},
        "dead": {"type": "topic"},
        "other": {"type": "fanout"},
    },
    "queues": {
        "jobs.high": {"dead_letter": {"exchange": "dead"}, "bindings": [{"exchange": "jobs"}]},
        "jobs.low": {"bindings": [{"exchange": "amq.topic"}]},
    },
    "jobs": {"a": {"exchange": "jobs"}, "b": {"exchange": "other"}},
    "workers": {"high": {"queues": ["jobs.high"]}, "low": {"queues": ["jobs.low"]}},
}


def rights(**user: object) -> Rights:
    topology = Topology.model_validate({**BASE, "users": {"u": user}})
    found = rights_of(topology, topology.users["u"])
    assert found is not None
    return found


@pytest.mark.parametrize("role", ["producer", "scheduler"])
def test_who_publishes_writes_to_the_exchanges_of_its_jobs(role: str) -> None:
    # Whoever publishes may cancel it again; schedulers never do.
    more = r"|t\.cancellations" if role == "producer" else ""
    assert rights(role=role) == Rights(write=f"^(jobs|other{more})$")
    assert rights(role=role, jobs=["b"]) == Rights(write=f"^(other{more})$")
    assert rights(role=role, jobs=[]) == Rights()


def test_a_caller_has_queues_for_its_replies_besides() -> None:
    own = r"^(rabbitry\.reply\..*)$"
    for jobs in (None, ["b"], []):
        publishes = rights(role="producer", jobs=jobs)
        wanted = replace(publishes, configure=own, read=own)
        assert rights(role="caller", jobs=jobs) == wanted
    assert re.search(own, new_name())
    assert not re.search(own, "jobs.high")


def test_a_scheduler_holds_the_token_of_the_schedules() -> None:
    data = {
        **BASE,
        "schedules": {"s": {"job": "a", "every": "5s"}},
        "users": {"s": {"role": "scheduler"}, "p": {"role": "producer"}},
    }
    topology = Topology.model_validate(data)
    assert rights_of(topology, topology.users["s"]) == Rights(
        write=r"^(jobs|other|t\.schedule)$", read=r"^(t\.schedule|t\.schedule\.state)$"
    )
    assert rights_of(topology, topology.users["p"]) == Rights(
        write=r"^(jobs|other|t\.cancellations)$"
    )


def test_a_worker_reads_its_queues_and_replies() -> None:
    found = rights(role="worker")
    assert found == Rights(
        write=r"^(amq\.default|dead)$", read=r"^(jobs\.high|jobs\.low|t\.cancellations)$"
    )
    found = rights(role="worker", workers=["low"])
    assert found == Rights(write=r"^(amq\.default)$", read=r"^(jobs\.low|t\.cancellations)$")


def test_remote_control_takes_its_own_names() -> None:
    workers = {"high": {"queues": ["jobs.high"], "remote_control": True}}
    topology = Topology.model_validate(
        {**BASE, "workers": workers, "users": {"u": {"role": "worker"}}}
    )
    found = rights_of(topology, topology.users["u"])
    assert found is not None
    for name in ("celery.pidbox", "high@host.celery.pidbox", "celeryev", "celeryev.1-2"):
        assert re.search(found.configure, name)
    for name in ("jobs.high", "celeryx", "jobs", "dead"):
        assert not re.search(found.configure, name)


def test_a_monitor_has_a_tag_and_no_right() -> None:
    assert rights(role="monitor") == Rights(tags=("monitoring",))


def test_a_provisioner_has_the_names_of_the_file() -> None:
    found = rights(role="provisioner")
    assert found.tags == ("policymaker",)
    for name in ("jobs", "dead", "other", "jobs.high", "rabbitry.lock"):
        assert re.search(found.configure, name)
    assert re.search(found.read, "amq.topic")
    assert not re.search(found.configure, "amq.topic")
    assert not re.search(found.configure, "jobsxhigh")


def test_a_role_becomes_tags_and_a_permission() -> None:
    users = {"p": {"role": "producer", "tags": ["management"]}, "n": {}, "m": {"role": "monitor"}}
    topology = Topology.model_validate({**BASE, "users": users})
    objects = compile_topology(topology).objects
    assert objects[Identity(USER, ("p",))].attributes == {"tags": ["management"]}
    assert objects[Identity(USER, ("m",))].attributes == {"tags": ["monitoring"]}
    # None is a statement too: a tag that is given by hand is a difference.
    assert objects[Identity(USER, ("n",))].attributes == {"tags": []}
    write = objects[Identity(PERMISSION, ("p",))].attributes["write"]
    assert write == r"^(jobs|other|t\.cancellations)$"
    assert Identity(PERMISSION, ("n",)) not in objects


@given(names, st.text(max_size=5))
def test_odd_names_are_matched_and_no_others(name: str, more: str) -> None:
    base = {**BASE, "queues": {name: {}}, "workers": {"w": {"queues": [name]}}}
    topology = Topology.model_validate({**base, "users": {"u": {"role": "worker"}}})
    found = rights_of(topology, topology.users["u"])
    assert found is not None
    assert re.search(found.read, name)
    if more and more != "\n":
        assert not re.search(found.read, name + more)
        assert not re.search(found.read, more + name)
