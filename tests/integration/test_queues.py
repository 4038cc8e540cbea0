"""`rabbitry queues`: what RabbitMQ counts, and messages that are seen and stay."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from broker.connection import connect
from broker.management import Management
from consumers.queues.counts import counts_of
from producers.publisher import Job, Publisher
from tests.letters import bury, declare, fill, ids, letter
from tests.provision import ready_in
from tests.waiting import until


@pytest.fixture
def queues(rabbitry, env, provisioned):
    """Run `rabbitry queues …` on the small topology."""

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        settings = {**env, "RABBITRY_TOPOLOGY": str(provisioned.path)}
        return rabbitry("queues", *args, env=settings)

    return run


def publish(provisioned, *priorities: int) -> None:
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        jobs = [Job("demo.add", (n, 0), priority=each) for n, each in enumerate(priorities)]
        for receipt in publisher.publish_many(jobs):
            receipt.wait()


def test_counts_tell_where_messages_are(rabbitmq, provisioned) -> None:
    publish(provisioned, 9, 9, 4, 0)
    bury(provisioned.address, [letter(provisioned.topology, "a")])
    connection = connect(provisioned.address)
    with Management(provisioned.address) as management:
        try:
            channel = connection.default_channel
            taken = channel.basic_get("jobs.normal")
            failed = channel.basic_get("jobs.normal")
            channel.basic_reject(failed.delivery_tag, requeue=True)

            def normal():
                return counts_of(management, ["jobs.normal"])[0]

            # The wait for the retry is over by the time that the statistics show.
            counts = until(
                lambda: (
                    (found := normal()).unacked == 1
                    and found.ready == 3
                    and (not rabbitmq.knows("4.3") or found.priorities)
                    and found.memory_bytes
                    and found
                ),
                timeout_s=30,
                what="the statistics",
            )
            assert taken.delivery_info["delivery_tag"] == 1
            assert (counts.type, counts.state) == ("quorum", "running")
            if rabbitmq.knows("4.3"):
                assert counts.priorities == {"4": 1, "0": 1}
                assert (counts.returned, counts.delayed, counts.dead_lettering) == (1, 0, 0)
        finally:
            connection.release()
        found = counts_of(management, None)
    ladder = [] if rabbitmq.knows("4.3") else ["quick.delays.1s", "quick.delays.lost"]
    names = ["jobs.dead", "jobs.normal", "jobs.tiny", "quick.cancellations", *ladder]
    assert [each.name for each in found] == names


def test_list_shows_the_topology_s_queues_or_those_that_are_named(
    rabbitmq, queues, provisioned
) -> None:
    declare(provisioned.address, "other", queue_type="classic")

    def rows(*args: str) -> list[dict]:
        done = queues("list", *args, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    assert [row["name"] for row in rows()] == list(provisioned.topology.queues)
    assert [row["name"] for row in rows("other", "jobs.dead")] == ["other", "jobs.dead"]
    # Before 4.3 there is a ladder for retries, too.
    assert len(rows("--all")) == (5 if rabbitmq.knows("4.3") else 7)
    table = queues("list", "other").stdout
    assert table.split()[:2] == ["QUEUE", "READY"]
    assert len(table.splitlines()) == 2


def test_watch_prints_a_line_a_queue_at_each_look(queues) -> None:
    done = queues("watch", "jobs.dead", "--count", "2", "--every", "100ms", "--json")
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first["name"] == second["name"] == "jobs.dead"
    assert second["at"] - first["at"] >= 0.1
    done = queues("watch", "--count", "1")
    assert [line.split()[1] for line in done.stdout.splitlines()] == [
        *("jobs.normal", "jobs.tiny", "jobs.dead"),
    ]


def test_watch_is_a_table_that_stays_in_its_place_on_a_terminal(provisioned, env, tmp_path) -> None:
    import os
    import pty

    parent, child = pty.openpty()
    command = [sys.executable, "-m", "rabbitry", "queues", "watch", "--count", "2"]
    with subprocess.Popen(
        [*command, "--every", "100ms"],
        env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path), "TERM": "xterm", "COLUMNS": "160"},
        cwd=tmp_path,
        stdin=child,
        stdout=child,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(child)
        shown = b""
        try:
            while part := os.read(parent, 65536):
                shown += part
        except OSError:
            pass  # Linux's way to say that the other side is closed
        finally:
            os.close(parent)
        assert process.stderr is not None
        error = process.stderr.read()
    assert process.returncode == 0, error
    text = shown.decode()
    assert text.count("jobs.normal") >= 2
    # The second look goes up over the first.
    assert "\x1b[1A" in text
    assert "***" in text


def test_peek_shows_the_next_messages_and_takes_none(rabbitmq, queues, provisioned) -> None:
    publish(provisioned, *([4] * 5))
    before = ids(provisioned.address, "jobs.normal")
    done = queues("peek", "jobs.normal", "--count", "3", "--json")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["id"] for each in found] == before[:3]
    assert [each["body"][0] for each in found] == [[0, 0], [1, 0], [2, 0]]
    assert found[0]["routing_key"] == "normal.demo.add"
    assert "3 of 5 messages" in done.stderr
    assert "normal.demo.add" in queues("peek", "jobs.normal").stdout
    if rabbitmq.knows("4.3"):
        assert ids(provisioned.address, "jobs.normal") == before
        assert ready_in(provisioned.address, "jobs.normal") == 5
    else:
        # That was the third look, and the limit is two.
        assert "counts this look as a failed attempt" in done.stderr
        dead = until(lambda: ids(provisioned.address, "jobs.dead"), 20, "the dead letters")
        assert sorted([*dead, *ids(provisioned.address, "jobs.normal")]) == sorted(before)


def test_peek_shows_what_is_no_job_too(queues, provisioned) -> None:
    declare(provisioned.address, "other", queue_type="classic")
    fill(provisioned.address, "other", 2)
    done = queues("peek", "other", "--json")
    assert [json.loads(line)["body"] for line in done.stdout.splitlines()] == [0, 1]


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (("list", "nowhere"), 1, "no queue 'nowhere'"),
        (("list", "jobs.dead", "--all"), 2, "or --all"),
        (("watch", "--every", "1ms"), 2, "--every"),
        (("peek", "nowhere"), 1, "no queue 'nowhere'"),
        (("peek", "jobs.dead", "--count", "0"), 2, "--count"),
    ],
)
def test_bad_input_is_one_sentence(queues, args, code, text) -> None:
    done = queues(*args)
    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"queue_type": "stream"}, "is a stream"),
        (
            {
                "queue_type": "quorum",
                "delayed_retry_type": "all",
                "delayed_retry_min": 100,
            },
            "delays every message that is returned",
        ),
    ],
)
def test_peek_refuses_where_looking_would_change_something(
    queues, provisioned, arguments, text
) -> None:
    declare(provisioned.address, "other", **arguments)
    done = queues("peek", "other")
    assert done.returncode == 2, done.stderr
    assert text in done.stderr
