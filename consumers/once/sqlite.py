"""Records of finished jobs in an SQLite file, for all workers on one machine."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from consumers.errors import StoreError
from consumers.once.store import Key, Record

# Written into the file's head, so that files of other kinds are told apart.
APPLICATION_ID = 0x52424F4E
VERSION = 1
BUSY_TIMEOUT_S = 10.0
BUSY_NAP_S = 0.01
# After so many records those whose time is over are taken out, so many at most.
PURGE_EVERY = 200
PURGE_MOST = 1000

SCHEMA = """
CREATE TABLE IF NOT EXISTS finished (
    job TEXT NOT NULL,
    id TEXT NOT NULL,
    finished_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    content BLOB,
    PRIMARY KEY (job, id)
) STRICT;
CREATE INDEX IF NOT EXISTS finished_by_expiry ON finished (expires_ms);
"""
_FIND = (
    "SELECT finished_ms, content, content_type FROM finished"
    " WHERE job = ? AND id = ? AND expires_ms > ?"
)
_KEEP = (
    "INSERT INTO finished (job, id, finished_ms, expires_ms, content_type, content)"
    " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (job, id) DO UPDATE SET"
    " finished_ms = excluded.finished_ms, expires_ms = excluded.expires_ms,"
    " content_type = excluded.content_type, content = excluded.content"
    # The first copy of a job to finish is the one that is answered with.
    " WHERE finished.expires_ms <= ?"
)
_PURGE = (
    "DELETE FROM finished WHERE rowid IN"
    " (SELECT rowid FROM finished WHERE expires_ms <= ? ORDER BY expires_ms LIMIT ?)"
)


class SqliteStore:
    """A store in one SQLite file, shared by threads and processes of one machine.

    What `keep` has taken is on the disk when it returns. Each process makes a store of its own: a
    connection to the file does not survive a fork.

    Args:
        path: of the file, made where there is none, readable by its owner only.
        clock: seconds since 1970-01-01 UTC.
    """

    def __init__(self, path: str | Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = Path(path)
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._kept = itertools.count(1)

    def find(self, key: Key) -> Record | None:
        """Return the record of a job, or None where there is none or its time is over.

        Raises:
            StoreError: the file cannot be read.
        """
        with self._open() as connection:
            row = connection.execute(_FIND, (*key, self._now_ms())).fetchone()
        return None if row is None else Record(*row)

    def keep(self, key: Key, record: Record, *, ttl_s: float) -> None:
        """Keep a record for so many seconds; one that is there already stays as it is.

        Raises:
            StoreError: the file cannot be written, or is locked for ten seconds.
        """
        now_ms = self._now_ms()
        expires_ms = now_ms + round(ttl_s * 1000)
        content = (record.finished_ms, expires_ms, record.content_type, record.content)
        with self._open() as connection:
            connection.execute(_KEEP, (*key, *content, now_ms))
            if next(self._kept) % PURGE_EVERY == 0:
                connection.execute(_PURGE, (now_ms, PURGE_MOST))

    def check(self) -> None:
        """Open the file, see that it can be written, and close it.

        Raises:
            StoreError: it is no such file, or cannot be read or written.
        """
        with self._open():
            pass
        self.close()

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                yield self._connection
            except (sqlite3.Error, OSError) as exc:
                # Whatever is mended or replaced meanwhile, the next use finds it.
                self._drop()
                text = exc.strerror if isinstance(exc, OSError) else exc
                raise StoreError(
                    f"the record of finished jobs {self.path} cannot be used: {text}; see that it"
                    " is an intact file that the worker may write, with room on its disk"
                ) from exc

    def _connect(self) -> sqlite3.Connection:
        if not self.path.is_file():
            # SQLite gives its own files beside it the same mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S
        )
        try:
            self._prepare(connection.execute)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, run: Callable[..., sqlite3.Cursor]) -> None:
        # Several processes may find it empty at once: the first one makes the table, and what the
        # others read is of one moment. A file that cannot be written says so here, before any job
        # is run.
        run("BEGIN IMMEDIATE")
        kind = run("PRAGMA application_id").fetchone()[0]
        empty = run("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if kind != APPLICATION_ID and not (empty and kind == 0):
            raise StoreError(
                f"{self.path} is an SQLite database of another kind, not a record of finished"
                " jobs; name another file under `once:`"
            )
        version = run("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise StoreError(
                f"the record of finished jobs {self.path} is of version {version}, this rabbitry"
                f" writes {VERSION}; upgrade rabbitry"
            )
        if version < VERSION:
            for statement in SCHEMA.split(";"):
                run(statement)
            run(f"PRAGMA application_id = {APPLICATION_ID}")
            run(f"PRAGMA user_version = {VERSION}")
        run(_PURGE, (self._now_ms(), PURGE_MOST))
        run("COMMIT")
        _write_ahead(run)
        run("PRAGMA synchronous = FULL")

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)


def _write_ahead(run: Callable[..., sqlite3.Cursor]) -> None:
    """Let readers and a writer go on side by side, by a log beside the file."""
    give_up = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            run("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as exc:
            # The change needs the file for itself, and SQLite does not wait for that.
            if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= give_up:
                raise
        time.sleep(BUSY_NAP_S)
