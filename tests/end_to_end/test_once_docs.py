"""Every block of the how-to on running a job once, as it stands."""

from __future__ import annotations

import sqlite3
import subprocess
import sys

import pytest

from producers.caller import Caller
from producers.publisher import Publisher
from tests.docs import ROOT, blocks, commands
from tests.integration.conftest import Provisioned
from tests.provision import provision, ready_in, topology_of
from tests.waiting import until

PAGE = ROOT / "docs" / "how-to" / "once.md"


@pytest.fixture
def provisioned(rabbitmq, vhost, tmp_path, monkeypatch, request) -> Provisioned:
    monkeypatch.setenv("RABBITRY_MANAGEMENT_URL", rabbitmq.management_url)
    for text in blocks(PAGE, "python"):
        name = text.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(text)
    whole, other = blocks(PAGE, "yaml")
    if getattr(request, "param", "file") == "own":
        # The last line of the one is what the other stands for.
        whole = whole.rpartition("once: ")[0] + other
    topology, path = topology_of(tmp_path, whole)
    address = rabbitmq.address(vhost)
    provision(topology, address)
    return Provisioned(topology, path, address)


@pytest.fixture
def worker(start, provisioned):
    return start("rabbitry", "worker", "run", "billing", queue="invoices")


def test_the_commands_send_one_letter(provisioned, worker, env, tmp_path) -> None:
    printed = []
    for command in commands(PAGE):
        done = subprocess.run(
            ["bash", "-ec", command],
            env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path)},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        printed.append(done.stdout)
    assert len(printed) == 3
    assert [each.strip() for each in printed[:2]] == ["sent 7", "sent 7"]
    until(lambda: worker.log.count("is not run") == 2, timeout_s=30, what="the two copies")
    assert worker.stop() == 0
    assert (tmp_path / "sent.txt").read_text() == "invoice 7\n"
    assert (tmp_path / "once.sqlite3").exists()
    assert ready_in(provisioned.address, "invoices") == 0


@pytest.mark.parametrize("provisioned", ["own"], indirect=True)
def test_a_store_of_ones_own_keeps_the_record_in_the_tasks_transaction(
    provisioned, worker, tmp_path
) -> None:
    with Caller(provisioned.topology, provisioned.url) as caller:
        results = [
            caller.submit("invoice.pay", invoice=7, id="pay-7", timeout_s=30).result()
            for _ in range(2)
        ]
        sent = caller.submit("invoice.send", invoice=8, id="send-8", timeout_s=30).result()
    assert results == ["paid 7"] * 2
    assert sent == "sent 8"
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        publisher.publish("invoice.send", invoice=8, id="send-8").wait()
    until(lambda: worker.log.count("is not run") == 2, timeout_s=30, what="the two copies")
    assert worker.stop() == 0
    assert (tmp_path / "sent.txt").read_text() == "invoice 8\n"
    db = sqlite3.connect(tmp_path / "shop.sqlite3")
    assert db.execute("SELECT * FROM payments").fetchall() == [(7,)]
    assert db.execute("SELECT job, id FROM finished ORDER BY id").fetchall() == [
        ("invoice.pay", "pay-7"),
        ("invoice.send", "send-8"),
    ]
    db.close()


COPIES = """
import sqlite3, threading
import shop
from consumers.once import Key

# Outside of a worker no job is current.
shop.current_job = lambda: Key("invoice.pay", "pay-7")
both, ends = threading.Barrier(2), []

def pay():
    both.wait(30)
    try:
        ends.append(shop.pay.run(7))
    except sqlite3.IntegrityError:
        ends.append("taken back")

copies = [threading.Thread(target=pay) for _ in range(2)]
for copy in copies:
    copy.start()
for copy in copies:
    copy.join()
print(*sorted(ends), sep="\\n")
"""


def test_the_second_of_two_copies_at_the_same_time_takes_back_what_it_did(
    provisioned, tmp_path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COPIES], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == ["paid 7", "taken back"], done.stderr
    db = sqlite3.connect(tmp_path / "shop.sqlite3")
    assert db.execute("SELECT * FROM payments").fetchall() == [(7,)]
    db.close()
