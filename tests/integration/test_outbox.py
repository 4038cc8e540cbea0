"""The outbox: RabbitMQ away, processes killed, jobs refused; nothing is lost, order is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from broker.body import decode
from broker.connection import connect
from broker.errors import InvalidMessage, KeptInOutbox, OutboxError, Rejected, Unroutable
from broker.receipt import Routed
from producers.outbox.file import OutboxFile
from producers.publisher import Job, Publisher
from tests.provision import ready_in
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
AWAY = "amqp://guest:guest@127.0.0.1:1/"
NAMES = ("demo.echo", "demo.add", "demo.sleep")


def consumed(address, queue: str = "jobs.normal") -> list[tuple[str, str, list]]:
    """Take everything out of a queue: name, id and arguments of each job, in order."""
    found: list[tuple[str, str, list]] = []

    def take(message) -> None:
        arguments, _, _ = decode(message.body, message.properties["content_type"])
        headers = message.properties["application_headers"]
        found.append((headers["task"], message.properties["message_id"], arguments))

    count = ready_in(address, queue)
    connection = connect(address)
    connection.default_channel.basic_consume(queue, callback=take, no_ack=True)
    while len(found) < count:
        connection.drain_events(timeout=10)
    connection.release()
    return found


def waiting_in(path: Path) -> int:
    file = OutboxFile(path)
    try:
        return file.counts()["waiting"]
    finally:
        file.close()


@pytest.fixture
def outbox(tmp_path) -> Path:
    return tmp_path / "jobs.outbox"


@pytest.fixture
def flush(rabbitry, outbox):
    """Run `rabbitry jobs flush` on the outbox."""
    return lambda *args: rabbitry("jobs", "flush", "--outbox", outbox, *args)


def test_what_is_routed_leaves_the_outbox(provisioned, outbox) -> None:
    series = np.arange(5.0)
    with Publisher(provisioned.topology, provisioned.url, outbox=outbox) as publisher:
        receipt = publisher.publish("demo.echo", series, id="one", headers={"tenant": "a"})
        assert receipt.accepted
        assert receipt.wait() == Routed("one", "jobs", "normal.demo.echo")
        jobs = (Job("demo.echo", (number,)) for number in range(3000))
        outcomes = Counter(type(each.outcome) for each in publisher.publish_many(jobs))
    assert outcomes == {Routed: 3000}
    assert waiting_in(outbox) == 0
    found = consumed(provisioned.address)
    assert (found[0][2][0] == series).all()
    assert [arguments[0] for _, _, arguments in found[1:]] == list(range(3000))


# Accepts a thousand jobs while RabbitMQ is away, and is killed before it can come to an end.
ACCEPT = """
import os, signal, sys
from broker.contracts import Job
from broker.topology import Topology
from producers.publisher import Publisher
publisher = Publisher(Topology.load(sys.argv[1]), sys.argv[2], outbox=sys.argv[3])
for number in range(1000):
    name = ("demo.echo", "demo.add", "demo.sleep")[number % 3]
    receipt = publisher.publish(Job(name, (number,), id=f"job-{number}"))
    assert receipt.accepted and not receipt.done
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_jobs_survive_without_rabbitmq_and_without_their_process(
    provisioned, outbox, flush
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ACCEPT, str(provisioned.path), AWAY, str(outbox)],
        cwd=ROOT,
        check=False,
        timeout=60,
    )
    assert done.returncode == -9
    assert waiting_in(outbox) == 1000
    nobody = flush("--url", AWAY)
    assert nobody.returncode == 4
    flushed = flush("--json")
    assert flushed.returncode == 0, flushed.stderr
    assert json.loads(flushed.stdout)["sent"] == 1000
    assert waiting_in(outbox) == 0
    found = consumed(provisioned.address)
    assert len(found) == 1000
    for name in NAMES:
        numbers = [arguments[0] for each, _, arguments in found if each == name]
        assert numbers == sorted(numbers)
    assert {id for _, id, _ in found} == {f"job-{number}" for number in range(1000)}


def test_a_flush_that_is_killed_loses_nothing_and_sends_the_same_ids(
    provisioned, outbox, env
) -> None:
    with Publisher(provisioned.topology, AWAY, outbox=outbox) as publisher:
        jobs = (Job("demo.echo", (number,), id=str(number)) for number in range(5000))
        outcomes = Counter(type(each.outcome) for each in publisher.publish_many(jobs))
        publisher.close(timeout_s=0)
    assert outcomes == {KeptInOutbox: 5000}
    command = [sys.executable, "-m", "rabbitry", "jobs", "flush", "--outbox", str(outbox)]
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        until(lambda: waiting_in(outbox) < 4500, timeout_s=30, what="some jobs to have left")
        run.kill()
    left = waiting_in(outbox)
    assert 0 < left < 4500
    done = subprocess.run(command, cwd=ROOT, env=env, check=False, timeout=60)
    assert done.returncode == 0
    found = consumed(provisioned.address)
    times = Counter(id for _, id, _ in found)
    assert times.keys() == {str(number) for number in range(5000)}
    assert set(times.values()) <= {1, 2}
    # Of those that are there once, all are in order; the others came again after the kill.
    once = [int(id) for _, id, _ in found if times[id] == 1]
    assert once == sorted(once)


def test_processes_share_an_outbox_and_each_learns_of_its_own(provisioned, outbox) -> None:
    code = (
        "import sys\n"
        "from broker.topology import Topology\n"
        "from broker.contracts import Job\n"
        "from producers.publisher import Publisher\n"
        "topology = Topology.load(sys.argv[1])\n"
        "with Publisher(topology, sys.argv[2], outbox=sys.argv[3]) as publisher:\n"
        "    for receipt in publisher.publish_many(\n"
        "        Job('demo.echo', (n,), id=f'{sys.argv[4]}-{n}') for n in range(500)\n"
        "    ): receipt.wait()\n"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(provisioned.path), provisioned.url, str(outbox), who],
            cwd=ROOT,
        )
        for who in ("a", "b", "c")
    ]
    assert [run.wait(60) for run in runs] == [0, 0, 0]
    found = consumed(provisioned.address)
    assert len(found) == len({id for _, id, _ in found}) == 1500
    for who in ("a", "b", "c"):
        mine = [arguments[0] for _, id, arguments in found if id.startswith(who)]
        assert mine == list(range(500))
    assert waiting_in(outbox) == 0


def test_what_is_refused_stays_with_its_reason_and_holds_up_no_other_name(
    provisioned, outbox, flush
) -> None:
    with Publisher(provisioned.topology, AWAY, outbox=outbox) as publisher:
        for number in range(3):
            publisher.publish("test.nowhere", id=f"lost-{number}")
            publisher.publish("demo.echo", id=f"fine-{number}")
        publisher.close(timeout_s=0)
    done = flush("--json")
    assert done.returncode == 5
    document = json.loads(done.stdout)
    assert (document["sent"], document["waiting"]) == (3, 3)
    assert {each["outcome"] for each in document["refused"]} == {"unroutable"}
    assert "NO_ROUTE" in document["refused"][0]["reason"]
    assert ready_in(provisioned.address, "jobs.normal") == 3
    for _ in range(7):
        assert flush().returncode == 5
    assert json.loads(flush("--dry-run", "--json").stdout)["aside"] >= 1
    for number in range(3):
        assert flush("--drop", f"lost-{number}").returncode in (0, 5)
    assert flush().returncode == 0
    assert flush("--drop", "lost-0").returncode == 2


def test_a_full_queue_keeps_the_order_of_the_rest(provisioned, outbox, flush) -> None:
    with Publisher(provisioned.topology, AWAY, outbox=outbox) as publisher:
        for number in range(12):
            publisher.publish(Job("test.tiny", (number,)))
        publisher.close(timeout_s=0)
    order: list[int] = []
    for _ in range(12):
        code = flush("--in-order").returncode
        order += [arguments[0] for _, _, arguments in consumed(provisioned.address, "jobs.tiny")]
        if code == 0:
            break
    assert order == list(range(12))


def test_outcomes_are_told_as_without_an_outbox(provisioned, outbox) -> None:
    with Publisher(provisioned.topology, provisioned.url, outbox=outbox) as publisher:
        with pytest.raises(Unroutable):
            publisher.publish("test.nowhere").wait()

        def fill() -> None:
            for _ in range(50):
                publisher.publish("test.tiny").wait()

        with pytest.raises(Rejected, match="full"):
            fill()
        publisher.publish("demo.echo", id="one").wait()
    with Publisher(provisioned.topology, AWAY, outbox=outbox) as publisher:
        receipt = publisher.publish("demo.echo", id="two", timeout_s=0.3)
        with pytest.raises(KeptInOutbox, match="kept in") as caught:
            receipt.wait()
        assert caught.value.sent is False
        with pytest.raises(InvalidMessage, match="another job with the id"):
            publisher.publish("demo.echo", 5, id="two")
        assert publisher.publish("demo.echo", id="two", timeout_s=0).accepted
        publisher.close(timeout_s=0)
    with pytest.raises(OutboxError):
        publisher.publish("demo.echo")


def test_the_command_says_that_a_job_is_kept(rabbitry, provisioned, outbox, flush) -> None:
    topology = ("--topology", str(provisioned.path))
    publish = ("jobs", "publish", "demo.echo", "--outbox", outbox, "--json", *topology)
    kept = rabbitry(*publish, "--url", AWAY)
    assert kept.returncode == 3, kept.stderr
    assert json.loads(kept.stdout)["outcome"] == "accepted"
    assert "rabbitry jobs flush" in kept.stderr
    sent = rabbitry(*publish)
    assert (sent.returncode, json.loads(sent.stdout)["outcome"]) == (0, "routed")
    # Whoever comes next sends what was left.
    assert ready_in(provisioned.address, "jobs.normal") == 2
    assert flush().returncode == 0
    lines = "".join('{"name": "demo.echo"}\n' for _ in range(2500))
    many = rabbitry(
        *("jobs", "publish", "--from", "-", "--outbox", outbox, "--timeout", "1s", *topology),
        *("--url", AWAY),
        input=lines,
    )
    assert many.returncode == 3, many.stderr
    assert "2,500 accepted" in many.stdout
    assert flush().returncode == 0
    assert ready_in(provisioned.address, "jobs.normal") == 2502
