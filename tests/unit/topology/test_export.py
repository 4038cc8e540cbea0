"""From objects to a file and back, without a broker."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.topology import Topology
from broker.topology.compile import compile_topology
from broker.topology.export import Export, Scope, default_name, export
from broker.topology.export.emit import to_yaml
from broker.topology.export.folding import names_of
from broker.topology.objects import (
    BINDING,
    EXCHANGE,
    POLICY,
    QUEUE,
    VHOST,
    Desired,
    Identity,
    Object,
    Objects,
)
from broker.topology.ownership import Record, Records, protected_of
from broker.topology.policies import pattern
from broker.topology.references import resolve_structure
from broker.topology.source import parse_yaml
from tests.unit.topology.samples import names, topology
from tests.unit.topology.strategies import PASSWORD_VARIABLE, whole_documents

ENVIRON = {PASSWORD_VARIABLE: "secret"}
_anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner)
    ),
    max_leaves=8,
)


def exported(objects: Objects, owner: str = "t", vhost: str = "/", **options: Any) -> Export:
    own = Record(owner, vhost, frozenset(objects), protected_of(objects.values()))
    return export(objects, scope=Scope(owner, Records(own)), vhost=vhost, **options)


def written(made: Export) -> Topology:
    """Return the topology of the file as it is read back."""
    data, source = parse_yaml(to_yaml(made.document), file="exported")
    data, errors = resolve_structure(data, source)
    assert errors == []
    return Topology.model_validate(data).placed(source)


def without_vhost(desired: Desired) -> dict[Identity, Any]:
    """Return the attributes of all else: of a virtual host only what the file says counts."""
    return {i: o.attributes for i, o in desired.objects.items() if i.kind != VHOST}


def of(**sections: Any) -> Desired:
    return compile_topology(topology(**sections))


@given(whole_documents())
@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_every_kind_of_object_goes_round(document: dict[str, Any]) -> None:
    wanted = compile_topology(Topology.model_validate(document), environ=ENVIRON)
    made = exported(wanted.objects, vhost="whole", requires="4.3", password_hashes=True)
    assert made.left_out == ()
    assert made.complaints == ()
    again = compile_topology(written(made), environ=made.variables)
    assert without_vhost(again) == without_vhost(wanted)
    assert protected_of(again.objects.values()) == protected_of(wanted.objects.values())


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), _anything, max_size=4))
@settings(deadline=None)
def test_what_is_written_reads_back_the_same(data: dict[str, Any]) -> None:
    assert (parse_yaml(to_yaml(data), file="t")[0] or {}) == data


@given(st.lists(names, min_size=1, unique=True))
def test_the_names_of_a_pattern_are_found_again(listed: list[str]) -> None:
    assert names_of(pattern(listed)) == listed


@pytest.mark.parametrize("expression", ["^jobs", "^(a|b)", "a|b", "^(a.)$", "^(a|(b))$", ""])
def test_a_pattern_that_lists_no_names_is_none(expression: str) -> None:
    assert names_of(expression) is None


def test_generated_policies_become_keys_again() -> None:
    queue = {
        "retry": {"delay": "1s", "max_delay": "1m", "limit": 5},
        "dead_letter": {"exchange": "dead"},
        "max_length": 1000,
        "message_ttl": "14d",
        "max_length_bytes": "16MiB",
        "bindings": [{"exchange": "jobs", "routing_key": "high.#"}],
    }
    exchanges = {
        "dead": {"type": "fanout"},
        "jobs": {"type": "topic", "internal": True, "alternate_exchange": "dead"},
    }
    made = exported(of(exchanges=exchanges, queues={"q": queue}).objects)
    assert made.document["queues"] == {"q": queue}
    assert made.document["exchanges"] == exchanges
    assert "policies" not in made.document


def test_a_generated_policy_that_somebody_changed_stays_a_policy() -> None:
    objects = dict(of(queues={"q": {"max_length": 5}, "r": {"message_ttl": "1m"}}).objects)
    changed = next(each for each in objects if objects[each].covers == ("q",))
    attributes = {**objects[changed].attributes, "definition": {"max-length": 6}}
    objects[changed] = Object(changed, attributes)
    made = exported(objects)
    assert made.document["queues"] == {"q": {}, "r": {"message_ttl": "1m"}}
    assert list(made.document["policies"]) == [changed.name[0]]
    assert [each["rule"] for each in made.document["lint"]["ignore"]] == ["policy-name"]
    assert made.complaints == ()


def test_an_argument_that_should_be_a_key_stays_what_it_is() -> None:
    exchange = {"type": "topic", "arguments": {"alternate-exchange": "amq.fanout"}}
    made = exported(of(exchanges={"x": exchange}).objects)
    assert made.document["exchanges"] == {"x": exchange}
    assert made.complaints == ()
    assert written(made).exchanges["x"].arguments == exchange["arguments"]


def test_what_the_file_cannot_say_is_left_out_with_its_bindings() -> None:
    objects = dict(of(queues={"q": {"bindings": [{"exchange": "amq.topic"}]}}).objects)
    exclusive = {"type": "classic", "durable": False, "auto_delete": False, "arguments": {}}
    for name in ("amq.gen-x", "line\nend"):
        identity = Identity(QUEUE, (name,))
        objects[identity] = Object(identity, exclusive | {"exclusive": True})
    binding = Identity(BINDING, ("amq.topic", "queue", "amq.gen-x", "k", "{}"))
    objects[binding] = Object(binding, {})
    made = exported(objects)
    assert list(made.document["queues"]) == ["q"]
    assert [each.identity.kind for each in made.left_out] == ["binding", "queue", "queue"]
    assert "exclusive" in str(made.left_out[1])


def test_celerys_and_other_topologies_objects_are_left_out_unless_asked_for() -> None:
    own = of(queues={"q": {}})
    celery, theirs = Identity(EXCHANGE, ("celeryev",)), Identity(EXCHANGE, ("theirs",))
    policy = Identity(POLICY, ("other.generated.quorum_queues.0123456789",))
    exchange = {
        "type": "topic",
        "durable": True,
        "auto_delete": False,
        "internal": False,
        "arguments": {},
    }
    body = {"pattern": "^(o)$", "apply-to": "quorum_queues", "priority": 100}
    objects = {
        **own.objects,
        celery: Object(celery, exchange),
        theirs: Object(theirs, exchange),
        policy: Object(policy, {**body, "definition": {"max-length": 1}}),
    }
    records = Records(Record("t", "/"), (Record("them", "/", frozenset({theirs})),))
    made = export(objects, scope=Scope("t", records), vhost="/")
    assert made.document.keys() == {"version", "name", "vhost", "queues"}
    assert "them" in " ".join(map(str, made.left_out))
    everything = export(objects, scope=Scope("t", records, everything=True), vhost="/")
    assert list(everything.document["exchanges"]) == ["celeryev", "theirs"]
    assert list(everything.document["policies"]) == [policy.name[0]]


def test_no_password_is_in_the_file() -> None:
    shovel = {"src_uri": "amqp://me:top%2Fsecret@h/v", "dest_uri": ["amqp://", "amqps://a:b@h"]}
    sections = {"shovels": {"from there": {**shovel, "src_queue": "q", "dest_queue": "q"}}}
    wanted = of(**sections)
    made = exported(wanted.objects)
    text = to_yaml(made.document)
    assert "secret" not in text
    assert "secret" not in repr(made)
    assert made.variables == {
        "SHOVELS_FROM_THERE_SRC_URI_PASSWORD": "top%2Fsecret",
        "SHOVELS_FROM_THERE_DEST_URI_PASSWORD": "b",
    }
    again = compile_topology(written(made), environ=made.variables)
    assert [
        each.attributes for each in again.objects.values() if each.identity.kind != "vhost"
    ] == [each.attributes for each in wanted.objects.values() if each.identity.kind != "vhost"]


@pytest.mark.parametrize(
    ("records", "policies", "vhost", "name"),
    [
        (["a"], ["b"], "/", "a"),
        (["a", "b"], [], "x", "x"),
        ([], ["b", "b"], "/", "b"),
        ([], [], "/", "exported"),
        ([], [], "my host/ž", "my-host"),
    ],
)
def test_a_file_gets_the_name_of_the_only_owner(
    records: list[str], policies: list[str], vhost: str, name: str
) -> None:
    assert default_name(records, policies, vhost) == name
