"""Errors in the file: each with its line and column."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import TopologyError
from broker.topology import Topology
from broker.topology.load import read
from broker.topology.references import resolve
from broker.topology.source import Position

HEAD = "version: 1\nname: t\n"
REFERENCE = Path(__file__).parents[3] / "topology.yaml"


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "t.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        # YAML itself
        ("a: [1\n", 2, 1, "this is not YAML"),
        ("a: b: c\n", 1, 5, "mapping values are not allowed here"),
        ("a: *b\n", 1, 4, "undefined alias"),
        ("a: &x [*x]\n", 1, 4, "contains itself"),
        ("a: !python/object:os.system x\n", 1, 4, "is not known here"),
        ("a: 1\nb:\n  a: \x07\n", 3, 6, "a character that YAML does not allow"),
        (HEAD + "---\nversion: 1\n", 3, 1, "another document"),
        (HEAD + "vhost: {name: a, name: b}\n", 3, 18, "'name' stands here a second time"),
        (HEAD + "queues:\n  42: {}\n", 4, 3, "write it in quotes: '42'"),
        (b"version: 1\nname: \xff\n", 2, 7, "byte 0xff is not UTF-8"),
        # the whole
        ("", None, None, "the file is empty"),
        ("- 1\n", None, None, "a list, not a mapping"),
        ("version: 2\nname: t\n", 1, 10, "it is 2, not 1"),
        ("version: 1\n", None, None, "the file needs the key 'name'"),
        ("version: 1\nname: a b\n", 2, 7, "name: string should match pattern"),
        # keys
        (HEAD + "queue: {}\n", 3, 1, "unknown key 'queue' (did you mean 'queues'?)"),
        (
            HEAD + "queues:\n  a:\n    max_lenght: 3\n",
            5,
            5,
            "unknown key 'max_lenght' (did you mean 'max_length'?)",
        ),
        (
            HEAD + "queues:\n  a:\n    retry: {delay: 1s, limits: 3}\n",
            5,
            24,
            "unknown key 'limits' (did you mean 'limit'?)",
        ),
        (
            HEAD + "queues:\n  a:\n    bindings: [{exchange: amq.topic, key: x}]\n",
            5,
            38,
            "unknown key 'key'",
        ),
        (HEAD + "exchanges:\n  a: {durable: true}\n", 4, 3, "exchange 'a' needs the key 'type'"),
        # values
        (HEAD + "queues:\n  a: {max_length: many}\n", 4, 19, "a whole number is expected"),
        (HEAD + "queues:\n  a: {max_length: true}\n", 4, 19, "this is a true or false"),
        (HEAD + "queues:\n  a: {max_length: -1}\n", 4, 19, "greater than or equal to 0"),
        (HEAD + "queues:\n  a: {message_ttl: 5}\n", 4, 20, "a duration needs a unit: write 5s"),
        (HEAD + "queues:\n  a: {message_ttl: 5 days}\n", 4, 20, "'5 days' is not a duration"),
        (HEAD + "queues:\n  a: {expires: 0s}\n", 4, 16, "longer than nothing"),
        (HEAD + "queues:\n  a: {message_ttl: 1us}\n", 4, 20, "finer than a millisecond"),
        (HEAD + "queues:\n  a: {max_length_bytes: 1XB}\n", 4, 25, "'1XB' is not a size"),
        (HEAD + "queues:\n  a: {type: qorum}\n", 4, 13, "did you mean 'quorum'?"),
        (HEAD + "queues: [a]\n", 3, 9, "a mapping is expected, this is a list"),
        (HEAD + "queues:\n  a: text\n", 4, 6, "a mapping is expected, this is a text"),
        (HEAD + "queues:\n  a:\n    bindings: {}\n", 5, 15, "a list is expected"),
        (HEAD + "broker: {requires: 4.3}\n", 3, 20, 'a version stands in quotes: "4.3"'),
        (HEAD + "policies: {p: {pattern: x}}\n", 3, 12, "needs the key 'definition'"),
        (HEAD + "schedules:\n  a: {every: 5s}\n", 4, 3, "needs the key 'job'"),
        (HEAD + "workers:\n  w: {queues: []}\n", 4, 15, "at least 1 item"),
        # names
        (HEAD + "queues:\n  amq.a: {}\n", 4, 3, "'amq.a' is reserved"),
        (HEAD + "queues:\n  '..': {}\n", 4, 3, "cannot be addressed"),
        (HEAD + 'queues:\n  "a\\nb": {}\n', 4, 3, "control characters"),
        (HEAD + f"queues:\n  {'ž' * 128}: {{}}\n", 4, 3, "at most 255 bytes, this has 256"),
        # what does not fit together
        (
            HEAD + "exchanges: {jobs: {type: topic}}\n"
            "queues:\n  a:\n    bindings:\n      - {exchange: job}\n",
            7,
            20,
            "no exchange is named 'job' (did you mean 'jobs'?)",
        ),
        (
            HEAD + "queues:\n  a:\n    dead_letter:\n      exchange: gone\n",
            6,
            17,
            "no exchange is named 'gone'",
        ),
        (
            HEAD + "queues: {a: {}}\nworkers:\n  w:\n    queues: [a, b]\n",
            6,
            17,
            "no queue is named 'b'",
        ),
        (
            HEAD + "jobs:\n  j: {exchange: nope, routing_key: k}\n",
            4,
            17,
            "no exchange is named 'nope'",
        ),
        (
            HEAD + "queues:\n  a:\n    type: classic\n    retry: {delay: 1s}\n",
            6,
            5,
            "a classic queue takes no retry, only quorum queues do",
        ),
        (
            HEAD + "queues:\n  s: {type: stream, max_length: 5}\n",
            4,
            21,
            "a stream queue takes no max_length, only classic and quorum queues do",
        ),
        (
            HEAD + "queues:\n  a: {overflow: drop-head, dead_letter: {exchange: amq.topic}}\n",
            4,
            17,
            "rules out dead-lettering at least once",
        ),
        (HEAD + "queues:\n  a: {overflow: reject-publish-dlx}\n", 4, 17, "not reject-publish-dlx"),
        (HEAD + "queues:\n  a: {durable: false}\n", 4, 16, "neither durable nor exclusive"),
        (
            HEAD + "queues:\n  a: {arguments: {x-queue-type: classic}}\n",
            4,
            19,
            "write type beside the queue's other settings",
        ),
        (
            HEAD + "queues:\n  a: {delivery_limit: 3, retry: {delay: 1s, limit: 3}}\n",
            4,
            7,
            "the same setting",
        ),
        (
            HEAD + "queues:\n  a: {retry: {delay: 2s, max_delay: 1s}}\n",
            4,
            37,
            "max_delay is shorter than delay",
        ),
        (
            HEAD + "queues:\n  a: {bindings: [{exchange: amq.topic}, {exchange: amq.topic}]}\n",
            4,
            41,
            "this binding stands here twice",
        ),
        (HEAD + "vhost: {name: '${VHOST}'}\n", 3, 15, "the environment variable VHOST is not set"),
    ],
)
def test_an_error_names_its_place(
    tmp_path: Path, text: str | bytes, line: int | None, column: int | None, words: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(TopologyError) as caught:
        Topology.load(path)
    assert words in caught.value.text
    assert (caught.value.line, caught.value.column) == (line, column)
    assert caught.value.file == str(path)


def test_a_missing_file_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"no such file.*--topology"):
        Topology.load(tmp_path / "none.yaml")
    with pytest.raises(TopologyError, match="cannot be read: Is a directory"):
        Topology.load(tmp_path)


def test_all_errors_are_told_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + "quues: {}\nqueues:\n  a: {max_length: x, typ: quorum}\n")
    with pytest.raises(TopologyError) as caught:
        Topology.load(path)
    first, second, third = str(caught.value).splitlines()
    assert first.startswith(f"{path}:3:1: unknown key 'quues'")
    assert second.startswith(f"{path}:5:19: queue 'a' max_length")
    assert third.startswith(f"{path}:5:22: unknown key 'typ' (did you mean 'type'?)")


def test_hundreds_of_errors_are_not_all_told(tmp_path: Path) -> None:
    queues = "".join(f"  q{index}: {{colour: red}}\n" for index in range(300))
    with pytest.raises(TopologyError) as caught:
        Topology.load(write(tmp_path, HEAD + "queues:\n" + queues))
    assert len(str(caught.value).splitlines()) == 21
    assert str(caught.value).endswith("and 280 more")


def test_aliases_that_multiply_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 7):
        aliases = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} [{aliases}]")
    with pytest.raises(TopologyError, match="its aliases multiply"):
        Topology.load(write(tmp_path, "\n".join(lines)))


def test_merged_settings_are_overridden_by_what_stands_there(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        HEAD + "queues:\n  a:\n    <<: &s {max_length: 5, expires: 1h}\n"
        "  b:\n    max_length: 6\n    <<: *s\n",
    )
    queues = Topology.load(path).queues
    assert (queues["a"].max_length, queues["b"].max_length) == (5, 6)
    assert queues["b"].expires == timedelta(hours=1)


def test_queues_take_their_type_from_the_virtual_host(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        HEAD + "vhost: {default_queue_type: classic}\nqueues:\n  a:\n  b: {type: stream}\n",
    )
    queues = Topology.load(path).queues
    assert (queues["a"].type, queues["b"].type) == ("classic", "stream")


def test_the_reference_file_says_what_its_comments_say() -> None:
    topology, problems = read(REFERENCE)
    assert problems == []
    assert topology is not None
    assert list(topology.workers) == ["high", "normal", "low"]
    assert {queue.type for queue in topology.queues.values()} == {"quorum"}
    limit = topology.queues["jobs.high"].consumer_timeout
    assert limit is not None
    assert all((job.time_limit or timedelta()) < limit for job in topology.jobs.values())


class TestReferences:
    place = Position("dir/t.yaml", 3, 9)

    def test_variables_and_defaults(self) -> None:
        environ = {"A": "one"}
        text = resolve("${A}-${B:-two}-${C:-}", environ=environ, position=self.place)
        assert text == "one-two-"

    def test_an_unset_variable_is_named_with_its_place(self) -> None:
        with pytest.raises(TopologyError, match=r"^dir/t.yaml:3:9: .*PASSWORD is not set"):
            resolve("x${PASSWORD}", environ={}, position=self.place)

    def test_files_are_read_relative_to_the_topology_file(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("pw\n")
        place = Position(str(tmp_path / "t.yaml"), 1, 1)
        assert resolve("a:${file:secret}@", environ={}, position=place) == "a:pw@"
        with pytest.raises(TopologyError, match="the file gone cannot be read"):
            resolve("${file:gone}", environ={}, position=place)

    def test_what_is_no_reference_is_refused(self) -> None:
        with pytest.raises(TopologyError, match="is not"):
            resolve("${1}", environ={}, position=self.place)

    def test_the_url_is_resolved_only_when_asked_for(self, tmp_path: Path) -> None:
        path = write(tmp_path, HEAD + 'broker:\n  url: "amqp://u:${PW}@host/"\n')
        topology = Topology.load(path)
        assert topology.broker_url({"PW": "x"}) == "amqp://u:x@host/"
        with pytest.raises(TopologyError, match=r"t.yaml:4:8: .*PW is not set"):
            topology.broker_url({})
