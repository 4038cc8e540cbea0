"""The stream of cancellations: when there is one, what it is, and whose its name is."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from broker.topology import Topology
from broker.topology.cancellations import Cancellations, cancellations_of, is_cancellations
from broker.topology.compile import compile_topology
from broker.topology.diagram import drawing
from broker.topology.lint import check
from broker.topology.objects import BINDING, EXCHANGE, POLICY, QUEUE, Identity
from broker.topology.obsolete import Consent

BASE = {
    "version": 1,
    "name": "shop",
    "queues": {"q": {"bindings": [{"exchange": "amq.topic", "routing_key": "#"}]}},
    "jobs": {"pack": {"exchange": "amq.topic", "routing_key": "pack"}},
    "workers": {"w": {"queues": ["q"]}},
}


def test_where_there_are_workers_there_is_a_bounded_stream_for_them() -> None:
    topology = Topology.model_validate(BASE)
    objects = compile_topology(topology, secrets=False).objects
    name = "shop.cancellations"
    assert objects[Identity(QUEUE, (name,))].attributes["type"] == "stream"
    assert objects[Identity(EXCHANGE, (name,))].attributes["type"] == "fanout"
    policy = objects[Identity(POLICY, (name,))].attributes
    assert (policy["pattern"], policy["apply-to"]) == (r"^shop\.cancellations$", "streams")
    assert policy["definition"] == {"max-age": "1D", "max-length-bytes": 8 * 2**20}
    names = cancellations_of(topology)
    assert names == Cancellations("shop")
    ours = [each for each in objects if is_cancellations(names, each)]
    assert sorted(each.kind for each in ours) == sorted([BINDING, EXCHANGE, POLICY, QUEUE])
    assert not [each for each in check(topology) if "cancellations" in each.text]


def test_without_workers_nobody_would_read_it() -> None:
    topology = Topology.model_validate({**BASE, "workers": {}})
    assert cancellations_of(topology) is None
    objects = compile_topology(topology, secrets=False).objects
    assert not [each for each in objects if "cancellations" in str(each.name)]


def test_two_topologies_share_no_stream() -> None:
    one, other = Cancellations("shop"), Cancellations("shop.cancellations")
    assert one.queue != other.queue
    assert one.exchange != other.exchange


@pytest.mark.parametrize("section", ["queues", "exchanges"])
def test_its_name_is_reserved(section: str) -> None:
    data = {**BASE, section: {**BASE.get(section, {}), "shop.cancellations": {}}}  # type: ignore[dict-item]
    if section == "exchanges":
        data[section]["shop.cancellations"] = {"type": "topic"}  # type: ignore[index]
    Topology.model_validate({**data, "workers": {}})
    with pytest.raises(ValidationError, match="is reserved: workers read it"):
        Topology.model_validate(data)


def test_the_picture_shows_the_way_of_jobs_only() -> None:
    topology = Topology.model_validate(BASE)
    found = drawing(topology, compile_topology(topology, secrets=False).objects)
    assert not [node for node in found.nodes if "cancellations" in node.name]


def test_what_it_holds_keeps_nobody_from_deleting_it() -> None:
    consent = Consent(prune=True, nonempty=frozenset({"old"}))
    assert consent.deletes_filled("shop.cancellations", owner="shop")
    assert consent.deletes_filled("old", owner="shop")
    # Another topology's may still be read.
    assert not consent.deletes_filled("other.cancellations", owner="shop")
    assert not consent.deletes_filled("q", owner="shop")
