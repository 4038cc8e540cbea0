"""Jobs in a program's own transaction: published where it commits, and only then."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

from broker.contracts import Job
from broker.errors import InvalidInput, UnknownJob
from producers.outbox.table import POSTGRESQL, SQLITE, Drained, drain, store_job
from producers.publisher import Publisher
from tests.integration.postgresql import postgresql
from tests.integration.test_outbox import consumed
from tests.provision import ready_in

AWAY = "amqp://guest:guest@127.0.0.1:1/"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql() as target:
        yield target


@pytest.fixture(params=["sqlite", "postgresql"])
def connect(request, tmp_path) -> Iterator[Callable[[], Any]]:
    """Connect to a database with the table and one of the program's own."""
    opened: list[Any] = []
    if request.param == "sqlite":
        make: Callable[[], Any] = lambda: sqlite3.connect(tmp_path / "app.db")  # noqa: E731
        ddl = SQLITE
    else:
        target = request.getfixturevalue("server")
        make = lambda: psycopg.connect(target)  # noqa: E731
        ddl = POSTGRESQL

    def connect() -> Any:
        opened.append(make())
        return opened[-1]

    connection = connect()
    for statement in ("DROP TABLE IF EXISTS rabbitry_outbox", "DROP TABLE IF EXISTS orders", ddl):
        connection.execute(statement)
    connection.execute("CREATE TABLE orders (id INTEGER)")
    connection.commit()
    yield connect
    for each in opened:
        each.close()


def stored_in(connection) -> int:
    count = connection.execute("SELECT count(*) FROM rabbitry_outbox").fetchone()[0]
    connection.rollback()
    return int(count)


def test_what_is_committed_is_published_once_and_in_order(provisioned, connect) -> None:
    connection = connect()
    series = np.arange(4.0)
    for number in range(50):
        connection.execute(f"INSERT INTO orders VALUES ({number})")
        name = ("demo.echo", "demo.add")[number % 2]
        store_job(connection, provisioned.topology, Job(name, (number, series), id=str(number)))
        connection.commit()
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        assert drain(connection, publisher, limit=20) == Drained(routed=20)
        assert drain(connection, publisher) == Drained(routed=30)
        assert drain(connection, publisher) == Drained()
    found = consumed(provisioned.address)
    assert [int(id) for _, id, _ in found] == list(range(50))
    assert (found[7][2][1] == series).all()
    assert stored_in(connection) == 0


def test_what_is_rolled_back_is_never_published(provisioned, connect) -> None:
    connection = connect()
    connection.execute("INSERT INTO orders VALUES (1)")
    store_job(connection, provisioned.topology, Job("demo.echo", (1,)))
    connection.rollback()
    with pytest.raises(UnknownJob):
        store_job(connection, provisioned.topology, Job("demo.ecko"))
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        assert drain(connection, publisher) == Drained()
    assert connection.execute("SELECT count(*) FROM orders").fetchone()[0] == 0
    assert ready_in(provisioned.address, "jobs.normal") == 0


def test_a_crash_between_confirm_and_commit_sends_the_same_id_again(provisioned, connect) -> None:
    connection = connect()
    store_job(connection, provisioned.topology, Job("demo.echo", (1,), id="one"))
    connection.commit()

    class Dies:
        """A connection whose program dies before the commit."""

        __module__ = type(connection).__module__

        def __getattr__(self, name: str) -> Any:
            if name == "commit":
                raise SystemExit
            return getattr(connection, name)

    with Publisher(provisioned.topology, provisioned.url) as publisher:
        with pytest.raises(SystemExit):
            drain(Dies(), publisher)
        connection.rollback()
        assert stored_in(connection) == 1
        assert drain(connection, publisher) == Drained(routed=1)
    assert [id for _, id, _ in consumed(provisioned.address)] == ["one", "one"]


def test_without_rabbitmq_jobs_stay(provisioned, connect) -> None:
    connection = connect()
    store_job(connection, provisioned.topology, Job("demo.echo"))
    connection.commit()
    with Publisher(provisioned.topology, AWAY) as publisher:
        assert drain(connection, publisher, timeout_s=0.3) == Drained(unknown=1)
    assert stored_in(connection) == 1


def test_a_refused_job_stays_with_its_reason_and_is_set_aside_in_the_end(
    provisioned, connect
) -> None:
    connection = connect()
    store_job(connection, provisioned.topology, Job("test.nowhere"))
    store_job(connection, provisioned.topology, Job("demo.echo"))
    connection.commit()
    with Publisher(provisioned.topology, provisioned.url) as publisher:
        assert drain(connection, publisher) == Drained(routed=1, refused=1)
        for _ in range(7):
            assert drain(connection, publisher) == Drained(refused=1)
        assert drain(connection, publisher) == Drained()
    reason, aside = connection.execute("SELECT reason, aside FROM rabbitry_outbox").fetchone()
    assert "NO_ROUTE" in reason
    assert aside


def test_one_program_at_a_time_drains_a_name(provisioned, server) -> None:
    with psycopg.connect(server) as one, psycopg.connect(server) as two:
        one.execute("DROP TABLE IF EXISTS rabbitry_outbox")
        one.execute(POSTGRESQL)
        for name in ("demo.echo", "demo.echo", "demo.add"):
            store_job(one, provisioned.topology, Job(name))
        one.commit()
        with Publisher(provisioned.topology, provisioned.url) as publisher:
            one.execute("SELECT 1 FROM rabbitry_outbox WHERE position = 1 FOR UPDATE")
            assert drain(two, publisher) == Drained(routed=1)
            one.rollback()
            assert drain(two, publisher) == Drained(routed=2)


def test_connections_of_other_kinds_are_refused(provisioned) -> None:
    with pytest.raises(InvalidInput, match="neither sqlite3's nor psycopg's"):
        store_job(object(), provisioned.topology, Job("demo.echo"))
