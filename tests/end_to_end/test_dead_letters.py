"""`rabbitry dead-letters`: what people type, what they get, and what a kill leaves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.body import Body
from broker.case_file import Reason
from broker.management import Management
from tests.integration.conftest import Provisioned
from tests.letters import bury, ids, inside, letter
from tests.provision import ready_in
from tests.waiting import until

Dead = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def dead(rabbitry, env, provisioned: Provisioned) -> Dead:
    """Run `rabbitry dead-letters …` on the small topology."""

    def run(*args: object, **options: object) -> subprocess.CompletedProcess[str]:
        settings = {"env": {**env, "RABBITRY_TOPOLOGY": str(provisioned.path)}, **options}
        return rabbitry("dead-letters", *args, stdin=subprocess.DEVNULL, **settings)

    return run


def rows(done: subprocess.CompletedProcess[str]) -> list[dict]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def few(provisioned: Provisioned) -> Provisioned:
    """Five letters of four kinds in the dead-letter queue."""
    undecodable = Body(b"\xff\xfe no JSON", "application/json", "utf-8")
    bury(
        provisioned.address,
        [
            letter(provisioned.topology, "a"),
            letter(provisioned.topology, "b"),
            letter(provisioned.topology, "c", job="demo.echo", error="app.Odd"),
            letter(provisioned.topology, "d", body=undecodable, reason=Reason.UNDECODABLE),
            letter(provisioned.topology, "e", routing_key="nowhere", error="app.Lost"),
        ],
    )
    return provisioned


def test_list_groups_and_takes_nothing(few, dead) -> None:
    groups = rows(dead("list", "--json"))
    assert [(each["job"], each["reason"], each["error"], each["count"]) for each in groups] == [
        ("demo.add", "limit", "builtins.ValueError", 2),
        ("demo.echo", "limit", "app.Odd", 1),
        ("demo.add", "undecodable", "builtins.ValueError", 1),
        ("demo.add", "limit", "app.Lost", 1),
    ]
    done = dead("list", "--job", "demo.echo", "--queue", "jobs.dead")
    assert done.stdout.split()[:2] == ["COUNT", "JOB"]
    assert "app.Odd: no such thing" in done.stdout
    assert len(done.stdout.splitlines()) == 2
    each = rows(dead("list", "--each", "--json", "--error", "ValueError"))
    assert [row["id"] for row in each] == ["a", "b", "d"]
    assert ids(few.address, "jobs.dead") == list("abcde")


def test_list_says_what_it_did_not_look_at(rabbitmq, few, dead) -> None:
    done = dead("list", "--most", 2, "--json")
    assert [row["count"] for row in rows(done)] == [2]
    assert "the first 2 of 5 messages in queue 'jobs.dead'" in done.stderr
    # Before 4.3 a queue without a delivery limit puts at its end what comes back.
    order = "abcde" if rabbitmq.knows("4.3") else "cdeab"
    assert ids(few.address, "jobs.dead") == list(order)


def test_list_of_nothing_says_so(few, dead) -> None:
    done = dead("list", "--newer", "1h")
    assert done.returncode == 0
    assert "No dead letter of these in queue 'jobs.dead'." in done.stderr


def test_show_tells_everything(few, dead) -> None:
    (found,) = rows(dead("show", "a", "--json"))
    assert found["case"]["traceback"].endswith("ValueError: no such thing")
    assert found["case"]["worker"] == "normal"
    assert found["body"][0] == [1, 2]
    assert found["headers"]["task"] == "demo.add"
    assert found["properties"]["message_id"] == "a"
    text = dead("show", "d").stdout
    assert "undecodable" in text
    assert "exchange 'jobs', key 'normal.demo.add'" in text
    assert "fffe206e6f204a534f4e" in text


def test_replay_sends_what_is_meant_and_names_what_stays(few, dead) -> None:
    dry = dead("replay", "--dry-run", "--json")
    assert json.loads(dry.stdout)["replayed"] == 5
    assert ids(few.address, "jobs.dead") == list("abcde")
    done = dead("replay", "--error", "Lost", "--error", "Odd")
    assert done.returncode == 3
    assert "Stays: no queue took message e" in done.stderr
    assert "1 replayed, 5 looked at, 1 stay" in done.stderr
    assert ids(few.address, "jobs.normal") == ["c"]
    assert ids(few.address, "jobs.dead") == list("abde")
    done = dead("replay", "--reason", "undecodable", "--json")
    assert json.loads(done.stdout) == {"dry_run": False, "looked": 4, "replayed": 1, "stayed": []}
    assert inside(few.address, "jobs.normal")[1].content == b"\xff\xfe no JSON"


def test_drop_names_what_it_deletes_and_wants_a_yes(few, dead) -> None:
    done = dead("drop", "--job", "demo.add", "--error", "ValueError")
    assert done.returncode == 2
    assert "2 of demo.add in queue 'jobs.dead': limit builtins.ValueError" in done.stderr
    assert "--yes" in done.stderr
    assert ids(few.address, "jobs.dead") == list("abcde")
    done = dead("drop", "--job", "demo.add", "--error", "ValueError", "--yes", "--json")
    assert json.loads(done.stdout)["dropped"] == 3
    assert ids(few.address, "jobs.dead") == ["c", "e"]


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (("list", "--queue", "nowhere"), 1, "no queue 'nowhere'"),
        (("list", "--older", "soon"), 2, "soon"),
        (("show", "no-such-id"), 2, "has the id 'no-such-id'"),
        (("replay", "--limit", "0"), 2, "--limit"),
        (("replay", "--rate", "-1"), 2, "--rate"),
        (("replay", "--queue", "nowhere"), 1, "no queue 'nowhere'"),
        (("drop", "--url", "amqp://guest:wrong@127.0.0.1:1/", "--yes"), 4, "cannot reach"),
    ],
)
def test_bad_input_is_one_sentence(dead, args, code, text) -> None:
    done = dead(*args)
    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert "wrong" not in done.stderr


def test_without_a_dead_letter_queue_one_must_be_named(dead, provisioned) -> None:
    text = provisioned.path.read_text()
    provisioned.path.write_text(text.replace('{exchange: jobs.dead, routing_key: "#"}', ""))
    done = dead("list")
    assert done.returncode == 2
    assert "no dead-letter queue" in done.stderr
    assert "--queue" in done.stderr


def test_an_interrupted_replay_tells_what_it_did_and_leaves_the_rest(
    provisioned, env, tmp_path: Path
) -> None:
    count = 1000
    bury(provisioned.address, [letter(provisioned.topology, str(n)) for n in range(count)])
    with subprocess.Popen(
        [sys.executable, "-m", "rabbitry", "dead-letters", "replay", "--rate", "200"],
        env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path)},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        until(
            lambda: ready_in(provisioned.address, "jobs.normal") > 50,
            timeout_s=30,
            what="replayed messages",
        )
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 130, told
    sent = ids(provisioned.address, "jobs.normal")
    assert f"interrupted: {len(sent)} replayed" in told
    assert 50 < len(sent) < count
    assert [*sent, *ids(provisioned.address, "jobs.dead")] == [str(n) for n in range(count)]


def test_a_kill_in_the_midst_of_a_replay_loses_none(
    rabbitmq, provisioned, env, tmp_path: Path
) -> None:
    count, kills = 2000, 3
    if not rabbitmq.knows("4.3"):
        # It counts this test's looks, and would give up what it looks at.
        with Management(provisioned.address) as management:
            body = {"pattern": r"^jobs\.", "priority": 5000, "definition": {"delivery-limit": -1}}
            management.put("policies", provisioned.address.vhost_name, "looks", body=body)
    everything = [str(number) for number in range(count)]
    bury(provisioned.address, [letter(provisioned.topology, id) for id in everything])
    command = [sys.executable, "-m", "rabbitry", "dead-letters", "replay"]
    settings = {**env, "RABBITRY_TOPOLOGY": str(provisioned.path)}
    for kill in range(kills):
        before = ready_in(provisioned.address, "jobs.normal")
        with subprocess.Popen(
            [*command, "--rate", "1000"], env=settings, cwd=tmp_path, stderr=subprocess.DEVNULL
        ) as process:
            until(
                lambda before=before: ready_in(provisioned.address, "jobs.normal") > before + 100,
                timeout_s=30,
                what="replayed messages",
            )
            assert process.poll() is None
            process.kill()
        # What it held RabbitMQ takes back when it notices that the connection is gone.
        until(
            lambda: (
                ready_in(provisioned.address, "jobs.dead")
                + ready_in(provisioned.address, "jobs.normal")
                >= count
            ),
            timeout_s=30,
            what=f"kill {kill} to be noticed",
        )
        replayed = Counter(ids(provisioned.address, "jobs.normal"))
        dead = Counter(ids(provisioned.address, "jobs.dead"))
        assert sorted({*replayed, *dead}, key=int) == everything
        assert max(dead.values()) == 1
    done = subprocess.run(
        [*command, "--json"], env=settings, cwd=tmp_path, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert ready_in(provisioned.address, "jobs.dead") == 0
    replayed = Counter(ids(provisioned.address, "jobs.normal"))
    assert sorted(replayed, key=int) == everything
    # Of each kill at most the window that was confirmed and not yet taken out.
    assert sum(replayed.values()) - count <= kills * 1000
