"""The outbox's file: accepted jobs on disk until RabbitMQ has confirmed them.

One SQLite database in WAL mode. What `OutboxFile.write` has accepted is on the disk when it
returns (``synchronous=FULL``); what it takes out may come back after a loss of power, and is then
sent once more with the same message id.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.errors import OutboxError
from producers.outbox.stored import COLUMNS, Stored

# Written into the file's head, so that files of other kinds are told apart.
APPLICATION_ID = 0x52425259
VERSION = 1
BUSY_TIMEOUT_S = 30.0
# How long a dropped job is remembered, for other processes that wait for its outcome.
DROPPED_KEPT_MS = 24 * 3600 * 1000

WAITING, ASIDE, DROPPED = "waiting", "aside", "dropped"

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    exchange TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    content_type TEXT NOT NULL,
    content_encoding TEXT NOT NULL,
    headers BLOB NOT NULL,
    properties BLOB NOT NULL,
    body BLOB NOT NULL,
    accepted_ms INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    refusals INTEGER NOT NULL DEFAULT 0,
    outcome TEXT,
    reason TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, position);
"""
_INSERT = (
    f"INSERT INTO jobs ({', '.join(COLUMNS)}, accepted_ms)"
    f" VALUES ({', '.join('?' * len(COLUMNS))}, ?) ON CONFLICT (id) DO NOTHING RETURNING position"
)
_CONTENT = f"SELECT {', '.join(COLUMNS)} FROM jobs WHERE position = ?"


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of a job in the file without reading its message.

    Attributes:
        position: jobs of one name leave in the order of their positions.
        refusals: how often RabbitMQ has refused it.
        outcome, reason: of the last refusal: ``unroutable`` or ``rejected``, and why.
    """

    position: int
    id: str
    name: str
    accepted_ms: int
    state: str
    refusals: int
    outcome: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """RabbitMQ has refused a job; `aside` when others need not wait for it any longer."""

    position: int
    outcome: str
    reason: str
    aside: bool


class OutboxFile:
    """An outbox on disk; used by one thread at a time, by any number of processes.

    Args:
        path: of the file, made where there is none.
        create: whether to make it.

    Raises:
        OutboxError: it is of another kind or a newer version, cannot be read or written, or is
            missing and not to be made.
    """

    def __init__(self, path: str | Path, *, create: bool = True) -> None:
        self.path = Path(path)
        self._lock_fd: int | None = None
        made = not self.path.exists()
        if made and not create:
            raise OutboxError(f"there is no outbox {self.path}; is its path right?", path=path)
        if self.path.is_dir():
            raise OutboxError(f"{self.path} is a directory, not an outbox; name a file", path=path)
        with self._translated():
            self._connection = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S
            )
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise
        if made:
            # The file's own name must outlast a loss of power, too.
            folder = os.open(self.path.absolute().parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _prepare(self) -> None:
        run = self._connection.execute
        kind = run("PRAGMA application_id").fetchone()[0]
        version = run("PRAGMA user_version").fetchone()[0]
        empty = run("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if kind != APPLICATION_ID and not (empty and kind == 0):
            raise OutboxError(
                f"{self.path} is an SQLite database of another kind, not an outbox; name another"
                " file",
                path=self.path,
            )
        if version > VERSION:
            raise OutboxError(
                f"the outbox {self.path} is of version {version}, this rabbitry writes"
                f" {VERSION}; upgrade rabbitry",
                path=self.path,
            )
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        if version < VERSION:
            # Several processes may find it empty at once: the first one makes the table.
            run("BEGIN IMMEDIATE")
            for statement in SCHEMA.split(";"):
                run(statement)
            run(f"PRAGMA application_id = {APPLICATION_ID}")
            run(f"PRAGMA user_version = {VERSION}")
            run("COMMIT")
        # Says now, rather than at the first job, that the file cannot be written.
        run("BEGIN IMMEDIATE")
        old_ms = round(time.time() * 1000) - DROPPED_KEPT_MS
        run("DELETE FROM jobs WHERE state = ? AND accepted_ms < ?", (DROPPED, old_ms))
        run("COMMIT")

    def close(self) -> None:
        """Close the file and let others send what is in it."""
        self.unlock()
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    # -- writing ------------------------------------------------------------------------

    def write(
        self,
        accepted: Sequence[tuple[Any, ...]] = (),
        *,
        routed: Sequence[int] = (),
        refused: Sequence[Refusal] = (),
    ) -> list[int | None]:
        """Accept jobs, take out the routed ones and note refusals, all in one transaction.

        Args:
            accepted: the `Stored.values` of each job.
            routed: positions.
            refused: what RabbitMQ said of which.

        Returns:
            The position of each accepted job; None where its id is taken by another job. A job
            that is in the file already keeps its position.

        Raises:
            OutboxError: the disk is full, or the file cannot be written; nothing has changed.
        """
        now_ms = round(time.time() * 1000)
        rows = [(*values, now_ms) for values in accepted]
        with self._transaction(durable=bool(accepted or refused)) as run:
            if routed:
                self._connection.executemany(
                    "DELETE FROM jobs WHERE position = ?", [(position,) for position in routed]
                )
            for refusal in refused:
                run(
                    "UPDATE jobs SET refusals = refusals + 1, outcome = ?, reason = ?, state = ?"
                    " WHERE position = ? AND state = ?",
                    (
                        refusal.outcome,
                        refusal.reason,
                        ASIDE if refusal.aside else WAITING,
                        refusal.position,
                        WAITING,
                    ),
                )
            return [self._insert(row) for row in rows]

    def _insert(self, row: tuple[Any, ...]) -> int | None:
        found = self._connection.execute(_INSERT, row).fetchone()
        if found is not None:
            return int(found[0])
        same = self._connection.execute(
            "SELECT position FROM jobs WHERE id = ? AND name = ? AND exchange = ?"
            " AND routing_key = ? AND content_type = ? AND body = ? AND state <> ?",
            (row[0], row[1], row[2], row[3], row[4], row[8], DROPPED),
        ).fetchone()
        return None if same is None else int(same[0])

    def drop(self, id: str) -> bool:
        """Take a job out for good, unsent; False where there is none of this id."""
        with self._transaction() as run:
            changed = run(
                "UPDATE jobs SET state = ?, body = x'' WHERE id = ? AND state <> ?",
                (DROPPED, id, DROPPED),
            )
            return bool(changed.rowcount)

    def retry(self) -> int:
        """Put what is set aside back in its place; returns how many jobs."""
        with self._transaction() as run:
            changed = run(
                "UPDATE jobs SET state = ?, refusals = 0 WHERE state = ?", (WAITING, ASIDE)
            )
            return int(changed.rowcount)

    @contextlib.contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[Any]:
        run = self._connection.execute
        with self._translated():
            # A job that comes back after a loss of power is only sent again: no need to wait.
            run(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            run("BEGIN IMMEDIATE")
            try:
                yield run
                run("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    run("ROLLBACK")
                raise

    # -- reading ------------------------------------------------------------------------

    def waiting(self, *, after: int, limit: int, without: Collection[str] = ()) -> list[Row]:
        """Return the next jobs to send, in order, leaving out some names."""
        names = list(without)
        where = f" AND name NOT IN ({', '.join('?' * len(names))})" if names else ""
        return self._rows(
            f"state = ? AND position > ?{where} ORDER BY position LIMIT ?",
            (WAITING, after, *names, limit),
        )

    def refused(self) -> list[Row]:
        """Return the jobs that RabbitMQ has refused, in order; at most 1,000."""
        return self._rows("refusals > 0 AND state <> ? ORDER BY position LIMIT 1000", (DROPPED,))

    def among(self, positions: Sequence[int]) -> dict[int, Row]:
        """Return those of some jobs that are still in the file."""
        found: list[Row] = []
        for start in range(0, len(positions), 500):
            some = positions[start : start + 500]
            found += self._rows(f"position IN ({', '.join('?' * len(some))})", some)
        return {row.position: row for row in found}

    def content(self, position: int) -> Stored | None:
        """Return a job with its message; None where it has gone. Raises InvalidMessage."""
        with self._translated():
            values = self._connection.execute(_CONTENT, (position,)).fetchone()
        return None if values is None else Stored.of(values)

    def counts(self) -> dict[str, int]:
        """Return how many jobs wait and how many are set aside."""
        with self._translated():
            found = dict(
                self._connection.execute("SELECT state, count(*) FROM jobs GROUP BY state")
            )
        return {state: found.get(state, 0) for state in (WAITING, ASIDE)}

    def _rows(self, where: str, values: Sequence[Any]) -> list[Row]:
        with self._translated():
            found = self._connection.execute(
                "SELECT position, id, name, accepted_ms, state, refusals, outcome, reason"
                f" FROM jobs WHERE {where}",
                values,
            ).fetchall()
        return [Row(*values) for values in found]

    # -- who sends ----------------------------------------------------------------------

    def try_lock(self) -> bool:
        """Become the one who sends what is in the file; False while another process is.

        The system frees the lock when its process ends, however it ends.
        """
        if self._lock_fd is not None:
            return True
        # Beside the file: closing any descriptor of the file itself would end SQLite's locks.
        path = f"{self.path}-sender"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise OutboxError(
                f"the outbox's lock {path} cannot be opened: {exc.strerror}", path=self.path
            ) from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._lock_fd = descriptor
        return True

    @property
    def locked(self) -> bool:
        """Whether this is the one who sends."""
        return self._lock_fd is not None

    def unlock(self) -> None:
        """Let another process send."""
        descriptor, self._lock_fd = self._lock_fd, None
        if descriptor is not None:
            os.close(descriptor)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            text = str(exc)
            if "full" in text:
                reason = "the disk is full; make room, nothing that was accepted is lost"
            elif "readonly" in text or "unable to open" in text:
                reason = f"it cannot be written ({text}); check its rights and its folder's"
            elif "not a database" in text:
                reason = "it is a file of another kind; name another file"
            elif "malformed" in text:
                reason = "it is damaged; `sqlite3 FILE .recover` may save what is in it"
            elif "locked" in text:
                reason = f"another process has held it for {BUSY_TIMEOUT_S:g} s; end that one"
            else:
                reason = text
            raise OutboxError(f"the outbox {self.path}: {reason}", path=self.path) from exc
