"""The outbox's file: what it takes, keeps and refuses, without RabbitMQ."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.body import Body, encode
from broker.errors import InvalidMessage, OutboxError
from broker.message import Message
from producers.outbox.file import OutboxFile, Refusal
from producers.outbox.stored import Stored

ROOT = Path(__file__).resolve().parents[2]


def stored(id: str, name: str = "a", content: bytes = b"[]") -> Stored:
    message = Message(id, Body(content, "application/json", "utf-8"), {"id": id}, {"priority": 4})
    return Stored(name, "jobs", f"high.{name}", message)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
TABLES = st.dictionaries(
    NAMES,
    st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner)),
    max_size=5,
)


@given(TABLES)
def test_headers_travel_as_the_same_bytes_as_without_an_outbox(headers) -> None:
    message = Message("id", Body(b"\x00body", "x/y", "binary"), headers, {"priority": 9})
    whole = Stored("name", "exchange", "key", message)
    assert Stored.of(whole.values()).values() == whole.values()


def test_dates_decimals_and_arrays_come_back_too() -> None:
    headers = {"when": datetime(2026, 1, 2, 3, 4, 5), "price": Decimal("1.25"), "deep": [{"a": 1}]}
    body = encode([[np.arange(5)], {}])
    whole = Stored("n", "e", "k", Message("id", body, headers, {"timestamp": 7}))
    assert Stored.of(whole.values()) == whole


@pytest.mark.parametrize("value", [object(), 2**70, {"x" * 300: 1}])
def test_what_amqp_cannot_express_is_refused_before_it_is_stored(value) -> None:
    message = Message("one", Body(b"", "x", "y"), {"header": value}, {})
    with pytest.raises(InvalidMessage, match="message one"):
        Stored("n", "e", "k", message).values()


def test_jobs_stay_in_order_until_they_are_routed(tmp_path) -> None:
    path = tmp_path / "outbox"
    file = OutboxFile(path)
    assert file.write([stored(id).values() for id in "abc"]) == [1, 2, 3]
    file.close()
    again = OutboxFile(path)
    assert [row.id for row in again.waiting(after=0, limit=10)] == ["a", "b", "c"]
    assert again.content(2) == stored("b")
    again.write(routed=[1, 3])
    assert again.counts() == {"waiting": 1, "aside": 0}
    # A position is never used twice, so that what waits is never overtaken.
    again.write(routed=[2])
    assert again.write([stored("d").values()]) == [4]


def test_an_id_is_accepted_once(tmp_path) -> None:
    file = OutboxFile(tmp_path / "outbox")
    same = [stored("a").values(), stored("b").values(), stored("a").values()]
    assert file.write(same) == [1, 2, 1]
    assert file.write([stored("a", content=b"[1]").values()]) == [None]
    assert file.counts()["waiting"] == 2


def test_a_refused_job_keeps_its_place_until_it_is_set_aside(tmp_path) -> None:
    file = OutboxFile(tmp_path / "outbox")
    file.write([stored("a").values(), stored("b").values()])
    file.write(refused=[Refusal(1, "unroutable", "312 NO_ROUTE", aside=False)])
    first = file.waiting(after=0, limit=1)[0]
    assert (first.id, first.refusals, first.reason) == ("a", 1, "312 NO_ROUTE")
    file.write(refused=[Refusal(1, "unroutable", "312 NO_ROUTE", aside=True)])
    assert [row.id for row in file.waiting(after=0, limit=10)] == ["b"]
    assert [(row.id, row.state, row.refusals) for row in file.refused()] == [("a", "aside", 2)]
    assert file.retry() == 1
    assert [row.id for row in file.waiting(after=0, limit=10)] == ["a", "b"]
    assert file.drop("a")
    assert not file.drop("a")
    assert [row.id for row in file.waiting(after=0, limit=10)] == ["b"]


def test_one_process_sends_at_a_time_and_its_death_frees_the_file(tmp_path) -> None:
    path = tmp_path / "outbox"
    file = OutboxFile(path)
    code = (
        "import sys; from producers.outbox.file import OutboxFile\n"
        "file = OutboxFile(sys.argv[1]); print(file.try_lock(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert not file.try_lock()
        other.kill()
        other.wait()
        assert file.try_lock()


def test_files_of_other_kinds_are_refused_and_left_alone(tmp_path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("these are notes, " * 100)
    with pytest.raises(OutboxError, match="another kind"):
        OutboxFile(text)
    assert text.read_text() == "these are notes, " * 100
    database = tmp_path / "app.db"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE users (id)")
    connection.close()
    before = database.read_bytes()
    with pytest.raises(OutboxError, match="another kind"):
        OutboxFile(database)
    assert database.read_bytes() == before
    with pytest.raises(OutboxError, match="directory"):
        OutboxFile(tmp_path)
    with pytest.raises(OutboxError, match="no outbox"):
        OutboxFile(tmp_path / "missing", create=False)
    with pytest.raises(OutboxError, match="cannot be written"):
        OutboxFile(tmp_path / "no" / "folder" / "outbox")


def test_a_newer_outbox_is_not_touched(tmp_path) -> None:
    path = tmp_path / "outbox"
    OutboxFile(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(OutboxError, match="upgrade rabbitry"):
        OutboxFile(path)


def test_a_damaged_outbox_is_said_to_be_damaged(tmp_path) -> None:
    path = tmp_path / "outbox"
    file = OutboxFile(path)
    file.write([stored(str(i), content=b"x" * 3000).values() for i in range(50)])
    file.close()
    content = bytearray(path.read_bytes())
    content[8192:-4096] = b"\xff" * (len(content) - 12288)
    path.write_bytes(content)

    def read_it_all() -> None:
        broken = OutboxFile(path)
        for row in broken.waiting(after=0, limit=100):
            broken.content(row.position)

    with pytest.raises(OutboxError, match="damaged"):
        read_it_all()


def test_a_full_disk_refuses_the_job_and_keeps_the_others(tmp_path) -> None:
    path = tmp_path / "outbox"
    OutboxFile(path).close()
    # A limit on the size of files is what a full disk looks like to SQLite.
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "from broker.errors import OutboxError\n"
        "from producers.outbox.file import OutboxFile\n"
        "from tests.unit.test_outbox_file import stored\n"
        "file = OutboxFile(sys.argv[1]); accepted = 0\n"
        "try:\n"
        "    while True:\n"
        "        file.write([stored(str(accepted), content=b'x' * 5000).values()]); accepted += 1\n"
        "except OutboxError as exc: print(accepted, exc)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    accepted, _, text = done.stdout.partition(" ")
    assert "full" in text
    assert int(accepted) > 10
    assert OutboxFile(path).counts()["waiting"] == int(accepted)
