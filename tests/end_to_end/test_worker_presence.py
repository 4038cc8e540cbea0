"""`worker check` and `worker list` say what RabbitMQ knows of who consumes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from broker.connection import connect
from broker.management import Management
from consumers.presence import presences_in, tag_prefix_of
from tests.waiting import until

RUN = (sys.executable, "-m", "rabbitry", "worker", "run", "normal")
Ask = Callable[..., "tuple[int, list[dict[str, object]], str]"]


@pytest.fixture
def ask(provisioned, env, tmp_path) -> Ask:
    """Run `rabbitry worker …  --json`; return the exit code, the objects and stderr."""

    def run(*words: str) -> tuple[int, list[dict[str, object]], str]:
        done = subprocess.run(
            [sys.executable, "-m", "rabbitry", "worker", *words, "--json"],
            env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr

    return run


def complete(provisioned, ask: Ask, count: int) -> list[dict[str, object]]:
    """Wait until RabbitMQ lists so many consumers and their connections; return the lines."""
    with Management(provisioned.address) as management:

        def look() -> bool:
            found = presences_in(management, ["jobs.normal"])
            return len(found) == count and all(each.since for each in found)

        until(look, timeout_s=40, what=f"{count} consumers in RabbitMQ's statistics")
    code, found, said = ask("check", "normal")
    assert code == 0, said
    return found


def test_a_worker_that_nobody_runs_is_missing(ask) -> None:
    code, found, said = ask("check", "normal")
    assert (code, found) == (1, [])
    assert "queue 'jobs.normal' lists no consumer of worker 'normal'" in said
    code, found, _ = ask("list")
    assert code == 0
    (line,) = found
    assert (line["worker"], line["queue"], line["running"]) == ("normal", "jobs.normal", False)


def test_a_worker_that_runs_is_listed_with_where_and_how(provisioned, ask, start) -> None:
    daemon = start(*RUN)
    (found,) = complete(provisioned, ask, 1)
    assert found["worker"] == "normal"
    assert found["host"] == socket.gethostname()
    assert found["pid"] == daemon.process.pid
    assert found["prefetch"] == 2
    assert found["active"] is True
    assert found["version"]
    assert ask("check", "normal", "--host", socket.gethostname())[0] == 0
    code, _, said = ask("check", "normal", "--host", "elsewhere")
    assert code == 1
    assert "of worker 'normal' on elsewhere" in said
    assert daemon.stop() == 0
    until(lambda: ask("check", "normal")[0] == 1, timeout_s=20, what="the consumer to be gone")


def test_two_of_one_name_on_one_host_are_two(provisioned, ask, start) -> None:
    first, second = start(*RUN), start(*RUN)
    found = complete(provisioned, ask, 2)
    assert {each["pid"] for each in found} == {first.process.pid, second.process.pid}
    assert len({each["tag"] for each in found}) == 2


def test_consumers_of_others_are_foreign(ask, start, provisioned) -> None:
    start(*RUN)
    connection = connect(provisioned.address)
    try:
        channel = connection.default_channel
        channel.basic_qos(0, 7, False)
        channel.basic_consume("jobs.normal", consumer_tag="somebody", callback=print)
        # A worker of rabbitry's that this file does not have.
        other = tag_prefix_of("other@there") + "1"
        channel.basic_consume("jobs.normal", consumer_tag=other, callback=print)

        def foreign() -> dict[object, dict[str, object]]:
            _, found, _ = ask("list")
            return {each["tag"]: each for each in found if each["foreign"]}

        until(lambda: len(foreign()) == 2, timeout_s=20, what="the foreign consumers")
        found = foreign()
    finally:
        connection.release()
    assert (found["somebody"]["worker"], found["somebody"]["prefetch"]) == (None, 7)
    assert (found[other]["worker"], found[other]["host"]) == ("other", "there")


def test_a_name_that_the_file_lacks_is_said(ask) -> None:
    code, found, said = ask("check", "norml")
    assert (code, found) == (1, [])
    assert "did you mean 'normal'" in said
