"""Several files as one, and values that come from outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker.errors import TopologyError
from broker.topology import Topology
from broker.topology.compile import compile_topology
from broker.topology.objects import HIDDEN, PARAMETER, USER, Identity, shown
from broker.topology.passwords import matches

HEAD = "version: 1\nname: t\n"


@pytest.fixture
def folder(tmp_path: Path):
    def write(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def test_included_files_add_to_the_file(folder) -> None:
    path = folder(
        main=HEAD + "include: [sub/queues.yaml, federation.yaml]\nqueues: {a: {}}\n",
        sub__queues=HEAD + "include: ../users.yaml\nqueues: {b: {type: classic}}\nexchanges:\n",
        users="include: [federation.yaml]\nusers: {u: {role: monitor}}\n",
        federation="federation: {upstreams: {up: {uri: amqp://}}}\n",
    )
    found = Topology.load(path / "main.yaml")
    assert list(found.queues) == ["a", "b"]
    assert list(found.users) == ["u"]
    assert list(found.federation.upstreams) == ["up"]
    assert found.source is not None
    assert str(found.source.key(("queues", "b"))) == f"{path}/sub/queues.yaml:4:10"


@pytest.mark.parametrize(
    ("files", "place", "words"),
    [
        (
            {
                "main": HEAD + "include: [more.yaml]\nqueues: {a: {}}\n",
                "more": "queues:\n  a: {}\n",
            },
            "more.yaml:2:3",
            "'a' stands here a second time; the first is at",
        ),
        (
            {
                "main": HEAD + "include: more.yaml\nparameters: {c: {n: 1}}\n",
                "more": "parameters:\n  c: {m: 1, n: 2}\n",
            },
            "more.yaml:2:13",
            "main.yaml:4:18",
        ),
        (
            {"main": HEAD + "include: more.yaml\n", "more": "name: other\n"},
            "more.yaml:1:1",
            "'name' stands here a second time",
        ),
        (
            {"main": HEAD + "include: [a.yaml]\n", "a": "include: [main.yaml]\n"},
            "a.yaml:1:11",
            "in a circle: main.yaml includes a.yaml includes main.yaml",
        ),
        ({"main": HEAD + "include: [no.yaml]\n"}, "main.yaml:3:11", "there is no file"),
        ({"main": HEAD + "include: {a: b}\n"}, "main.yaml:3:10", "a list of file names"),
        ({"main": HEAD + "include: a.yaml\n", "a": "- 1\n"}, "a.yaml", "a list, not a mapping"),
        (
            {"main": HEAD + "include: a.yaml\n", "a": "queues: {x: {colour: red}}\n"},
            "a.yaml:1:14",
            "unknown key 'colour'",
        ),
    ],
)
def test_an_error_names_the_right_file(folder, files, place: str, words: str) -> None:
    path = folder(**files)
    with pytest.raises(TopologyError) as caught:
        Topology.load(path / "main.yaml")
    assert str(caught.value).startswith(f"{path}/{place}: ")
    assert words in str(caught.value)


def test_overlays_merge_replace_and_remove(folder) -> None:
    path = folder(
        main=HEAD
        + "vhost: {name: dev, tags: [a, b]}\n"
        + "queues:\n  a: {max_length: 5, message_ttl: 1s}\n  b: {}\n",
        prod="vhost: {name: prod, tags: [c]}\nqueues: {a: {max_length: 50, message_ttl: null}}\n",
        more="queues:\n  b: null\n  c: {max_length: x}\n",
        empty="",
    )
    found = Topology.load(path / "main.yaml", overlay=[path / "prod.yaml", path / "empty.yaml"])
    assert (found.vhost.name, found.vhost.tags) == ("prod", ["c"])
    assert (found.queues["a"].max_length, found.queues["a"].message_ttl) == (50, None)
    assert found.source is not None
    assert str(found.source.value(("queues", "a", "max_length"))).endswith("prod.yaml:2:26")
    assert str(found.source.key(("queues", "b"))).endswith("main.yaml:6:3")
    with pytest.raises(TopologyError, match=r"more\.yaml:3:19: queue 'c' max_length"):
        Topology.load(path / "main.yaml", overlay=[path / "more.yaml"])


def test_an_overlay_cannot_remove_what_is_not_there(folder) -> None:
    path = folder(main=HEAD, over="queues: {a: null}\nexchanges: null\n")
    with pytest.raises(TopologyError, match=r"over\.yaml:2:1: there is no 'exchanges' to remove"):
        Topology.load(path / "main.yaml", overlay=[path / "over.yaml"])


def test_structure_is_resolved_when_the_file_is_read(folder, monkeypatch) -> None:
    monkeypatch.setenv("LIMIT", "12")
    monkeypatch.setenv("SURE", "true")
    path = folder(
        main=HEAD
        + "exchanges: {y: {type: '${TYPE:-topic}'}}\n"
        + "queues:\n  '1':\n    max_length: ${LIMIT}\n    message_ttl: ${TTL:-30s}\n"
        + "    max_length_bytes: ${SIZE:-1KiB}\n    single_active_consumer: ${SURE}\n"
        + "    bindings: [{exchange: y, routing_key: '${LIMIT}'}, {exchange: y, "
        + "routing_key: 'a.$${b}'}]\n",
    )
    found = Topology.load(path / "main.yaml")
    queue = found.queues["1"]
    assert (queue.max_length, queue.max_length_bytes) == (12, 1024)
    assert queue.message_ttl is not None
    assert queue.message_ttl.total_seconds() == 30
    assert queue.single_active_consumer is True
    assert [binding.routing_key for binding in queue.bindings] == ["12", "a.${b}"]
    assert found.exchanges["y"].type == "topic"
    monkeypatch.delenv("LIMIT")
    with pytest.raises(TopologyError, match=r"main\.yaml:6:17: the environment variable LIMIT"):
        Topology.load(path / "main.yaml")


def test_secrets_are_resolved_only_by_who_needs_them(folder, monkeypatch) -> None:
    path = folder(
        main=HEAD
        + "users:\n  p: {password: '${file:secret.txt}'}\n  q: {password: '${Q_PASSWORD}'}\n"
        + "shovels: {s: {src_uri: 'amqp://u:${PW}@h', dest_uri: ['amqp://a:b@h/x', 'amqp://']}}\n"
    )
    (path / "secret.txt").write_text("hunter2\n")
    found = Topology.load(path / "main.yaml")
    without = compile_topology(found, secrets=False).objects
    assert "password_hash" not in without[Identity(USER, ("p",))].attributes
    with pytest.raises(TopologyError, match=r"main\.yaml:5:17: the environment variable Q_P"):
        compile_topology(found)
    monkeypatch.setenv("Q_PASSWORD", "q")
    with pytest.raises(TopologyError, match=r"main\.yaml:6:24: the environment variable PW"):
        compile_topology(found)
    monkeypatch.setenv("PW", "swordfish")
    objects = compile_topology(found).objects
    attributes = objects[Identity(USER, ("p",))].attributes
    algorithm = attributes["hashing_algorithm"]
    assert matches("hunter2", attributes["password_hash"], algorithm=algorithm)
    shovel = objects[Identity(PARAMETER, ("shovel", "s"))]
    assert shovel.attributes["value"]["src-uri"] == "amqp://u:swordfish@h"
    assert shown(shovel)["value"] == {
        "src-uri": HIDDEN,
        "dest-uri": ["amqp://a:***@h/x", "amqp://"],
    }
    seen = json.dumps([shown(each) for each in objects.values()]) + repr(objects)
    assert "hunter2" not in seen
    assert attributes["password_hash"] not in json.dumps([shown(o) for o in objects.values()])


def test_a_user_cannot_have_two_passwords_or_two_rights(folder) -> None:
    path = folder(main=HEAD + "users: {u: {password: '${A}', password_hash: ''}}\n")
    with pytest.raises(TopologyError, match=r"3:12: user 'u': it has both password and"):
        Topology.load(path / "main.yaml")
