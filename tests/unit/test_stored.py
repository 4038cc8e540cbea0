"""What is kept of results: the bytes, where they go, and what the topology must say of it."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidInput, InvalidMessage, TopologyError, WorkerError
from broker.stored import connect, dump, load, shown
from broker.topology import Topology
from broker.topology.load import read
from broker.topology.results import completed
from consumers.kept import Kept, check_kept
from producers.results import Results

HEAD = """
version: 1
name: kept
queues: {here: {bindings: [{exchange: amq.topic, routing_key: "#"}], delivery_limit: -1}}
jobs:
  kept: {exchange: amq.topic, routing_key: k, store: true}
  loose: {exchange: amq.topic, routing_key: k}
"""
LOCAL = "results: {backend: 'redis://localhost:6379/0'}\n"
SECRET = "hunter2"

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def topology_of(folder: Path, text: str = LOCAL) -> Topology:
    path = folder / "topology.yaml"
    path.write_text(HEAD + text)
    return Topology.load(path)


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
@given(value=plain)
def test_what_has_no_arrays_is_what_celery_writes(serializer: Any, value: Any) -> None:
    from kombu.serialization import loads

    written = dump(value, serializer=serializer)
    types = {"json": ("application/json", "utf-8"), "msgpack": ("application/x-msgpack", "binary")}
    content_type, encoding = types[serializer]
    assert loads(written, content_type, encoding, accept={content_type}) == value
    assert load(written, serializer=serializer) == value


@pytest.mark.parametrize("serializer", ["json", "msgpack", "pickle"])
def test_arrays_come_back_bit_for_bit(serializer: Any) -> None:
    value = {
        "noise": np.array([1.5, np.nan, -0.0, np.inf], ">f8"),
        "empty": np.empty((0, 2), "i2"),
        "zero": np.array(7),
        "more": [np.array([(1, 2.0)], [("a", "i4"), ("b", "f4")]), "text"],
    }
    found = load(dump(value, serializer=serializer), serializer=serializer, accept=["pickle"])
    for name in ("noise", "empty", "zero"):
        assert found[name].tobytes() == value[name].tobytes()
        assert (found[name].dtype, found[name].shape) == (value[name].dtype, value[name].shape)
    assert found["more"][0].tobytes() == value["more"][0].tobytes()
    assert found["more"][1] == "text"


def test_arrays_are_read_whatever_the_serializer_has_become() -> None:
    written = dump([np.arange(3)], serializer="msgpack")
    assert load(written, serializer="json")[0].tolist() == [0, 1, 2]


def test_what_cannot_be_written_or_read_says_so(monkeypatch) -> None:
    with pytest.raises(InvalidMessage, match="object"):
        dump(object(), serializer="json")
    with pytest.raises(InvalidMessage, match="cannot be pickled"):
        dump(lambda: None, serializer="pickle")
    monkeypatch.setattr("broker.stored.MOST_BYTES", 1000)
    with pytest.raises(InvalidMessage, match=r"Redis takes at most 1000"):
        dump(np.zeros(125), serializer="json")
    with pytest.raises(InvalidMessage, match="is not the application/json"):
        load(b"{", serializer="json")
    with pytest.raises(InvalidMessage, match="is not the pickle"):
        load(b"{", serializer="pickle", accept=["pickle"])


def test_pickle_is_read_only_where_it_is_accepted() -> None:
    with pytest.raises(InvalidMessage, match=r"accept: \[pickle\]"):
        load(pickle.dumps(1), serializer="pickle")
    assert load(pickle.dumps(1), serializer="pickle", accept=("pickle",)) == 1


def test_addresses_are_shown_without_password_and_tls_is_checked() -> None:
    assert shown(f"redis://me:{SECRET}@host:7000/3") == "redis://host:7000/3"
    assert SECRET not in shown(f"redis://:{SECRET}@host:port/0")
    assert completed("rediss://host") == "rediss://host?ssl_cert_reqs=required"
    assert completed("rediss://host?a=1") == "rediss://host?a=1&ssl_cert_reqs=required"
    for as_it_is in ("redis://host", "rediss://host?ssl_cert_reqs=none"):
        assert completed(as_it_is) == as_it_is
    with pytest.raises(InvalidInput, match="cannot be read") as caught:
        connect(f"redis://:{SECRET}@host:{SECRET}/0")
    assert SECRET not in str(caught.value)


def test_the_address_is_made_of_the_environment_only_where_it_is_needed(tmp_path) -> None:
    topology = topology_of(tmp_path, 'results: {backend: "${KEPT_IN}"}\n')
    with pytest.raises(TopologyError, match="KEPT_IN is not set") as caught:
        topology.results_url({})
    assert caught.value.line is not None
    assert topology.results_url({"KEPT_IN": "redis://here"}) == "redis://here"
    with pytest.raises(TopologyError, match="redis://HOST") as caught:
        topology.results_url({"KEPT_IN": f"mysql://:{SECRET}@host"})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "store-nowhere"),
        ("results: {backend: 'amqp://host'}", "value"),
        ("results: {backend: 'redis://host', expires: 1500ms}", "value"),
        ("results: {backend: 'redis://host', expires: 0s}", "value"),
        ("results: {backend: 'redis://host', serializer: yaml}", "value"),
        ("results: {backend: 'redis://host', serializer: pickle}", "pickle-not-accepted"),
        ("results: {}", "missing-key"),
        (f"{LOCAL}accept: [yaml]", "value"),
    ],
)
def test_what_the_file_may_not_say(tmp_path, text: str, rule: str) -> None:
    path = tmp_path / "topology.yaml"
    path.write_text(HEAD + text)
    _, problems = read(path)
    assert [each.rule for each in problems if each.level == "error"] == [rule]
    with pytest.raises(TopologyError):
        Topology.load(path)


def test_a_password_in_the_file_is_a_warning_that_does_not_repeat_it(tmp_path) -> None:
    path = tmp_path / "topology.yaml"
    path.write_text(f"{HEAD}results: {{backend: 'redis://:{SECRET}@host'}}\n")
    _, problems = read(path)
    (found,) = [each for each in problems if each.rule == "plain-secret"]
    assert SECRET not in str(found)


def test_a_worker_is_told_what_its_topology_does_not_say(tmp_path) -> None:
    topology = topology_of(tmp_path)
    kept = Kept.of(topology)
    assert kept is not None
    assert (kept.keeps("kept"), kept.keeps("loose"), kept.keeps(None)) == (True, False, False)
    assert kept.expires_s == 86400
    assert "redis://" not in repr(kept)
    bare = topology.model_copy(update={"results": None})
    with pytest.raises(WorkerError, match=r"job 'kept' says `store: true`.*results:"):
        Kept.of(bare)
    with pytest.raises(InvalidInput, match="does not say where results are kept"):
        Results(bare)


def test_the_client_of_redis_may_be_missing(tmp_path, monkeypatch) -> None:
    topology = topology_of(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(WorkerError, match=r"pip install 'rabbitry\[redis\]'"):
        Kept.of(topology)
    with pytest.raises(InvalidInput, match=r"pip install 'rabbitry\[redis\]'"):
        Results(topology)


def test_a_worker_of_roots_reads_no_pickle(tmp_path, monkeypatch) -> None:
    topology = topology_of(tmp_path, f"{LOCAL}accept: [pickle]\n")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(WorkerError, match=r"root's.*C_FORCE_ROOT"):
        check_kept(None, topology, {})


def test_no_results_are_kept_of_the_messages_of_a_batch(tmp_path) -> None:
    topology = topology_of(tmp_path)
    batch = SimpleNamespace(columns=object())
    app = SimpleNamespace(kept=Kept.of(topology), tasks={"kept": batch})
    with pytest.raises(WorkerError, match=r"job 'kept' is a batch"):
        check_kept(app, topology)
