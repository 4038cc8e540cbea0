"""An outbox within a program's own database: a job is written in the transaction that wants it.

`store_job` writes into a table beside the program's own, without committing; `drain` publishes
what was committed, and takes it out once RabbitMQ has confirmed it. Both take a DB-API connection
of sqlite3 or psycopg. A job of a transaction that is rolled back is never published; one of a
transaction that is committed is published once, and once more with the same id where the program
dies between RabbitMQ's confirm and the commit of `drain`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from broker.confirmed import PUBLISH_TIMEOUT_S
from broker.contracts import Job, contract_of
from broker.errors import InvalidInput, Rejected, Unroutable
from broker.message import job_message
from broker.receipt import Receipt, Routed
from broker.topology import Topology
from producers.outbox.sender import REFUSALS_BEFORE_ASIDE
from producers.outbox.stored import COLUMNS, Stored
from producers.publisher import Publisher

SQLITE = """\
CREATE TABLE rabbitry_outbox (
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
    refusals INTEGER NOT NULL DEFAULT 0,
    aside BOOLEAN NOT NULL DEFAULT FALSE,
    reason TEXT
)"""
POSTGRESQL = SQLITE.replace("INTEGER PRIMARY KEY AUTOINCREMENT", "BIGSERIAL PRIMARY KEY").replace(
    "BLOB", "BYTEA"
)
BATCH = 500
# The first of each name: whoever has locked it is the one who sends that name.
_HEADS = (
    "SELECT name FROM rabbitry_outbox WHERE position IN"
    " (SELECT min(position) FROM rabbitry_outbox WHERE NOT aside GROUP BY name)"
)


@dataclass(frozen=True, slots=True)
class Drained:
    """What `drain` came to: how many jobs were routed, refused, and left as they were."""

    routed: int = 0
    refused: int = 0
    unknown: int = 0


def store_job(connection: Any, topology: Topology, job: Job) -> str:
    """Write a job into the table, within the caller's transaction, which it does not commit.

    Args:
        connection: of sqlite3 or psycopg.
        topology: says where the job goes.
        job: what to publish.

    Returns:
        The message's id.

    Raises:
        UnknownJob, InvalidArguments, InvalidMessage: nothing was written.
    """
    contract = contract_of(topology, job.name)
    contract.check(job.args, job.kwargs)
    message = job_message(contract, job, published_ms=round(time.time() * 1000))
    stored = Stored(contract.name, contract.exchange, contract.routing_key, message)
    marks = ", ".join([_mark(connection)] * len(COLUMNS))
    cursor = connection.cursor()
    cursor.execute(
        f"INSERT INTO rabbitry_outbox ({', '.join(COLUMNS)}) VALUES ({marks})", stored.values()
    )
    cursor.close()
    return message.id


def drain(
    connection: Any,
    publisher: Publisher,
    *,
    limit: int = BATCH,
    timeout_s: float = PUBLISH_TIMEOUT_S,
) -> Drained:
    """Publish the next jobs of the table, wait for their confirms, take them out and commit.

    Several programs may drain one table: each name is drained by one of them at a time, in the
    order of the table. A refused job stays; after eight refusals it is set aside, and its name
    goes on.

    Args:
        connection: of sqlite3 or psycopg, not within a transaction.
        publisher: without an outbox of its own.
        limit: at most so many jobs.
        timeout_s: seconds for each job until its outcome is known.

    Raises:
        InvalidInput: the connection is of another kind.
    """
    mark = _mark(connection)
    with _transaction(connection) as cursor:
        postgresql = mark == "%s"
        cursor.execute(_HEADS + (" FOR UPDATE SKIP LOCKED" if postgresql else ""))
        names = [row[0] for row in cursor.fetchall()]
        if not names:
            return Drained()
        marks = ", ".join([mark] * len(names))
        cursor.execute(
            f"SELECT position, {', '.join(COLUMNS)} FROM rabbitry_outbox"
            f" WHERE NOT aside AND name IN ({marks}) ORDER BY position LIMIT {int(limit)}",
            names,
        )
        receipts: list[tuple[int, Receipt]] = []
        for position, *values in cursor.fetchall():
            stored = Stored.of(tuple(values))
            receipt = publisher.publish_message(
                stored.message,
                exchange=stored.exchange,
                routing_key=stored.routing_key,
                timeout_s=timeout_s,
            )
            receipts.append((position, receipt))
        counts = {"routed": 0, "refused": 0, "unknown": 0}
        for position, receipt in receipts:
            outcome = _end_of(receipt)
            if isinstance(outcome, Routed):
                counts["routed"] += 1
                cursor.execute(f"DELETE FROM rabbitry_outbox WHERE position = {mark}", (position,))
            elif isinstance(outcome, (Unroutable, Rejected, InvalidInput)):
                counts["refused"] += 1
                cursor.execute(
                    "UPDATE rabbitry_outbox SET refusals = refusals + 1,"
                    f" aside = refusals + 1 >= {REFUSALS_BEFORE_ASIDE}, reason = {mark}"
                    f" WHERE position = {mark}",
                    (str(outcome), position),
                )
            else:
                counts["unknown"] += 1
        return Drained(**counts)


def _end_of(receipt: Receipt) -> Any:
    try:
        return receipt.wait()
    except (Unroutable, Rejected, InvalidInput) as exc:
        return exc
    # Nobody knows: it stays, and is sent again with the same id.
    except Exception:  # noqa: BLE001
        return None


@contextmanager
def _transaction(connection: Any) -> Iterator[Any]:
    cursor = connection.cursor()
    try:
        if _library(connection) == "sqlite3":
            # Others wait here: SQLite has one writer at a time.
            cursor.execute("BEGIN IMMEDIATE")
        yield cursor
    except BaseException:
        connection.rollback()
        raise
    else:
        connection.commit()
    finally:
        cursor.close()


def _library(connection: Any) -> str:
    return type(connection).__module__.partition(".")[0]


def _mark(connection: Any) -> str:
    """Return how a statement for this connection marks a value."""
    library = _library(connection)
    if library in ("sqlite3", "psycopg", "psycopg2"):
        return "?" if library == "sqlite3" else "%s"
    raise InvalidInput(
        f"a connection of {library} is neither sqlite3's nor psycopg's; in Django give"
        " django.db.connection.connection"
    )
