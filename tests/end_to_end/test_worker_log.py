"""What a worker tells: JSON for machines, and its state for systemd."""

from __future__ import annotations

import json
import socket
import sys

from broker.topology import Topology
from producers.caller import Caller
from producers.publisher import Publisher
from tests.provision import ready_in
from tests.waiting import until

TASKS = """
import logging
from rabbitry import job

@job("test.talk")
def talk(value):
    logging.getLogger("mine").info("a word of the task")
    return value
"""


def test_json_has_one_object_a_line_and_one_line_a_job(provisioned, start, tmp_path) -> None:
    (tmp_path / "talking.py").write_text(TASKS)
    text = provisioned.path.read_text()
    talk = '{task: "talking:talk", exchange: jobs, routing_key: normal.talk}'
    provisioned.path.write_text(
        text.replace("jobs:\n  demo.add", f"jobs:\n  test.talk: {talk}\n  demo.add")
    )
    daemon = start(
        *(sys.executable, "-m", "rabbitry", "worker", "run", "normal", "--log-format", "json")
    )
    with Publisher(Topology.load(provisioned.path), provisioned.url) as publisher:
        publisher.publish("test.talk", 1, id="talked").wait()
        publisher.publish("demo.fail", id="failing").wait()
    with Caller(provisioned.topology, provisioned.url) as caller:
        assert caller.call("demo.add", 1, 2, timeout_s=20) == 3
    until(lambda: ready_in(provisioned.address, "jobs.dead") == 1, timeout_s=20, what="the letter")
    assert daemon.stop() == 0
    lines = [json.loads(line) for line in daemon.log.splitlines()]
    assert all({"at", "level", "logger", "message"} <= line.keys() for line in lines)
    ended = [line for line in lines if "outcome" in line]
    of = {id: [line for line in ended if line["id"] == id] for id in ("talked", "failing")}
    (talked,) = of["talked"]
    assert (talked["job"], talked["queue"], talked["attempt"]) == ("test.talk", "jobs.normal", 1)
    assert talked["outcome"] == "done"
    assert talked["waited_s"] >= 0
    assert talked["ran_s"] >= 0
    found = [(line["attempt"], line["outcome"]) for line in of["failing"]]
    assert found == [(1, "retried"), (2, "retried"), (3, "dead")]
    assert len(ended) == 5
    # Written in another process, by the task itself.
    (word,) = [line for line in lines if line["logger"] == "mine"]
    assert (word["job"], word["id"], word["attempt"]) == ("test.talk", "talked", 1)
    failed = [line for line in lines if "failed in attempt 1" in line["message"]]
    assert "DemoFailure" in failed[0]["error"]


def test_systemd_is_told_when_it_consumes_lives_and_stops(start, tmp_path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(30)
        daemon = start(
            *("env", f"NOTIFY_SOCKET={path}", "WATCHDOG_USEC=500000"),
            *(sys.executable, "-m", "rabbitry", "worker", "run", "normal"),
        )
        words = sock.recv(4096).decode().splitlines()
        assert words[0] == "READY=1"
        assert "STATUS=consumes jobs.normal" in words
        assert f"MAINPID={daemon.process.pid}" in words
        assert sock.recv(4096) == b"WATCHDOG=1"
        assert daemon.stop() == 0
        told = []
        sock.settimeout(0)
        while "STOPPING=1" not in told:
            told.append(sock.recv(4096).decode())
