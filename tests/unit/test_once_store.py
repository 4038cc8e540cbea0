"""Records of finished jobs in an SQLite file: shared, on the disk, and gone when their time is."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consumers.errors import StoreError
from consumers.once import Key, Record
from consumers.once.sqlite import PURGE_EVERY, PURGE_MOST, SqliteStore
from consumers.once.store import MOST_BYTES

KEY = Key("test.job", "one")
AWAITED = Record.of({"n": 1})


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> SqliteStore:
    return SqliteStore(tmp_path / "once.sqlite3", clock=clock)


def rows(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        count = connection.execute("SELECT count(*) FROM finished").fetchone()[0]
    connection.close()
    return int(count)


def test_a_result_comes_back_as_it_was_arrays_bit_for_bit(store) -> None:
    odd = np.array([np.nan, -0.0, 5e-324, np.inf])
    store.keep(KEY, Record.of({"series": odd, "of": ["x", None, 2**60]}), ttl_s=60)
    found = store.find(KEY)
    assert found is not None
    result = found.result()
    assert result["series"].tobytes() == odd.tobytes()
    assert result["of"] == ["x", None, 2**60]


@pytest.mark.parametrize(
    "record",
    [Record.now(), Record.of(object()), Record.of(np.zeros(MOST_BYTES // 8))],
    ids=["nobody waits", "cannot be written", "too large"],
)
def test_a_result_that_is_not_kept_leaves_the_record_that_the_job_is_finished(
    store, record
) -> None:
    store.keep(KEY, record, ttl_s=60)
    found = store.find(KEY)
    assert found == record
    with pytest.raises(LookupError):
        found.result()


def test_a_key_is_a_job_and_an_id(store) -> None:
    store.keep(KEY, AWAITED, ttl_s=60)
    assert store.find(Key("test.other", "one")) is None
    assert store.find(Key("test.job", "two")) is None


def test_the_first_of_two_copies_stays_until_its_time_is_over(store, clock) -> None:
    store.keep(KEY, AWAITED, ttl_s=60)
    store.keep(KEY, Record.of("second"), ttl_s=600)
    assert store.find(KEY) == AWAITED
    clock.now_s += 59.9
    assert store.find(KEY) == AWAITED
    clock.now_s += 0.2
    assert store.find(KEY) is None
    store.keep(KEY, Record.of("second"), ttl_s=60)
    assert store.find(KEY).result() == "second"


def test_what_is_over_is_taken_out_now_and_then_and_not_all_at_once(store, clock) -> None:
    store.check()
    with sqlite3.connect(store.path) as connection:
        connection.executemany(
            "INSERT INTO finished VALUES ('test.job', ?, 0, 1, '', NULL)",
            [(str(number),) for number in range(2 * PURGE_MOST + 1)],
        )
    connection.close()
    left = []
    for number in range(1, 2 * PURGE_EVERY + 1):
        store.keep(Key("test.job", f"new {number}"), Record.now(), ttl_s=3600)
        if number % PURGE_EVERY in (0, PURGE_EVERY - 1):
            left.append(rows(store.path) - number)
    # Opening the file takes the first step.
    assert left == [PURGE_MOST + 1, 1, 1, 0]


def test_only_its_owner_can_read_it(store) -> None:
    before = os.umask(0)
    try:
        store.keep(KEY, AWAITED, ttl_s=60)
    finally:
        os.umask(before)
    files = list(store.path.parent.iterdir())
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_what_is_kept_is_there_for_the_next_process_and_after_closing(store) -> None:
    store.keep(KEY, AWAITED, ttl_s=60)
    store.close()
    assert store.find(KEY) == AWAITED


PROGRAM = """
import sys
from consumers.once import Key, Record
from consumers.once.sqlite import SqliteStore
path, name = sys.argv[1:]
store = SqliteStore(path)
for number in range(150):
    store.keep(Key("shared", str(number)), Record.of(name), ttl_s=3600)
    store.keep(Key(name, str(number)), Record.of(number), ttl_s=3600)
print(*(store.find(Key("shared", str(number))).result() for number in range(150)))
"""


def test_two_processes_write_at_once_and_agree(tmp_path) -> None:
    path = tmp_path / "once.sqlite3"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path), name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    told = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert told[0][0] == told[1][0]
    assert rows(path) == 450


ROUNDS = 20


def open_at_once(folder: Path, together: Any, found: Any) -> None:
    for number in range(ROUNDS):
        together.wait(60)
        try:
            SqliteStore(folder / f"{number}.sqlite3").check()
        except StoreError as exc:
            found.put(str(exc))
        else:
            found.put("")


def test_processes_may_find_it_missing_at_once(tmp_path) -> None:
    start = multiprocessing.get_context("spawn")
    together, found = start.Barrier(4), start.Queue()
    processes = [
        start.Process(target=open_at_once, args=(tmp_path, together, found)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    assert [found.get(timeout=60) for _ in range(4 * ROUNDS)] == [""] * (4 * ROUNDS)
    for process in processes:
        process.join(60)


def test_threads_share_one(store) -> None:
    failed = []

    def work(name: str) -> None:
        try:
            for number in range(50):
                store.keep(Key(name, str(number)), Record.of(number), ttl_s=60)
                assert store.find(Key(name, str(number))).result() == number
        except BaseException as exc:
            failed.append(exc)
            raise

    threads = [threading.Thread(target=work, args=(str(each),)) for each in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert rows(store.path) == 200


# -- files that will not do ---------------------------------------------------------------


def refusal(path: Path) -> str:
    """Return with what words a file is refused, by all three of check, find and keep."""
    texts = set()
    store = SqliteStore(path)
    for use in (
        store.check,
        lambda: store.find(KEY),
        lambda: store.keep(KEY, AWAITED, ttl_s=60),
    ):
        with pytest.raises(StoreError) as caught:
            use()
        texts.add(str(caught.value))
    assert len(texts) == 1, texts
    return texts.pop()


def test_what_is_no_database_is_refused(tmp_path) -> None:
    path = tmp_path / "once.sqlite3"
    path.write_text("notes of mine\n" * 100)
    assert "file is not a database" in refusal(path)
    assert path.read_text() == "notes of mine\n" * 100


def test_a_database_of_another_kind_is_refused_and_left_alone(tmp_path) -> None:
    path = tmp_path / "other.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE orders (id TEXT)")
    connection.close()
    before = path.read_bytes()
    assert "of another kind" in refusal(path)
    assert path.read_bytes() == before


def test_a_newer_version_is_refused(store) -> None:
    store.check()
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "version 99" in refusal(store.path)


def test_a_folder_that_is_missing_and_a_folder_instead_of_a_file_are_refused(tmp_path) -> None:
    assert "No such file or directory" in refusal(tmp_path / "missing" / "once.sqlite3")
    assert "Is a directory" in refusal(tmp_path)


def test_a_file_that_is_damaged_while_in_use_is_refused_and_its_successor_taken(store) -> None:
    for number in range(2000):
        store.keep(Key("test.job", str(number)), Record.of("x" * 50), ttl_s=60)
    # Without what is beside it, nothing can be mended.
    store.close()
    content = bytearray(store.path.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    store.path.write_bytes(content)
    with pytest.raises(StoreError, match="malformed"):
        store.find(Key("test.job", "1000"))
    store.path.unlink()
    store.keep(KEY, AWAITED, ttl_s=60)
    assert store.find(KEY) == AWAITED


def test_a_full_disk_is_an_error_and_keeps_what_is_there(store) -> None:
    store.keep(KEY, AWAITED, ttl_s=60)
    # What SQLite says of a file that may not grow is what it says of a full disk.
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="full"):
        store.keep(Key("test.job", "large"), Record.of("x" * 100_000), ttl_s=60)
    assert store.find(KEY) == AWAITED
