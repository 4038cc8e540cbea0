"""`rabbitry jobs publish --from`: each line accounted for, whatever it holds."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from broker.connection import connect
from tests.provision import ready_in
from tests.waiting import until


@pytest.fixture
def publish(rabbitry, provisioned):
    """Run `rabbitry jobs publish …` on the small topology."""
    return lambda *args, **options: rabbitry(
        "jobs", "publish", *args, "--topology", str(provisioned.path), **options
    )


def lines_of(count: int) -> str:
    return "".join(f'{{"name": "demo.echo", "args": [{number}]}}\n' for number in range(count))


def drained(address, queue: str = "jobs.normal") -> list[tuple[str, bytes]]:
    """Take everything out of a queue: id and body of each message, in order."""
    found: list[tuple[str, bytes]] = []

    def take(message) -> None:
        body = message.body if isinstance(message.body, bytes) else message.body.encode()
        found.append((message.properties["message_id"], body))

    count = ready_in(address, queue)
    connection = connect(address)
    connection.default_channel.basic_consume(queue, callback=take, no_ack=True)
    while len(found) < count:
        connection.drain_events(timeout=10)
    connection.release()
    return found


def first_argument(body: bytes) -> int:
    return int(json.loads(body)[0][0])


def test_every_line_is_published_in_order_and_said(publish, provisioned, tmp_path) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text(lines_of(300))
    done = publish("--from", file, "--json")
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result.keys() for result in results] == [{"id", "name", "outcome", "reason"}] * 300
    assert {result["outcome"] for result in results} == {"routed"}
    assert "300 routed" in done.stderr
    found = drained(provisioned.address)
    assert [id for id, _ in found] == [result["id"] for result in results]
    assert [first_argument(body) for _, body in found] == list(range(300))


def test_a_line_may_say_all_of_a_job(publish, provisioned, tmp_path) -> None:
    job = {
        "name": "demo.add",
        "kwargs": {"a": 1, "b": 2},
        "id": "mine",
        "priority": 9,
        "deadline": "30s",
        "headers": {"tenant": "a"},
    }
    done = publish("--from", "-", input="\ufeff" + json.dumps(job) + "\r\n\r\n")
    assert done.returncode == 0, done.stderr
    connection = connect(provisioned.address)
    message = connection.default_channel.basic_get("jobs.normal", no_ack=True)
    connection.release()
    headers = message.properties["application_headers"]
    assert (message.properties["message_id"], message.properties["priority"]) == ("mine", 9)
    assert headers["tenant"] == "a"
    assert headers["rabbitry-deadline"] - headers["rabbitry-published"] == 30_000


WRONG = {
    "nope": "is not JSON",
    "[1]": "is a list, not an object",
    '{"name": "demo.ecko"}': "did you mean 'demo.echo'",
    '{"nam": "demo.echo"}': "did you mean 'name'",
    '{"args": []}': "has no 'name'",
    '{"name": "demo.echo", "args": 1}': "'args' must be a list",
    '{"name": "demo.echo", "priority": 99}': "from 0 to 31",
    '{"name": "demo.echo", "priority": true}': "'priority' must be a whole number",
    '{"name": "demo.echo", "deadline": "soon"}': "is not a duration",
    '{"name": "demo.echo", "deadline": 0}': "more than 0 seconds",
    '{"name": "demo.echo", "delay": -1}': "0 or more seconds",
    '{"name": "demo.echo", "headers": {"x-mine": 1}}': "reserved",
    '{"name": "demo.echo", "args": ["\\ud800"]}': "half a character",
    '{"name": "demo.echo", "args": ' + "[" * 100_000 + "}": "nested too deeply",
    "\x00\x01\x02": "binary",
}


def test_a_wrong_line_is_said_with_its_number_and_stops_nothing(
    publish, provisioned, tmp_path
) -> None:
    file = tmp_path / "jobs.jsonl"
    good = '{"name": "demo.echo"}'
    file.write_text("\n".join([good, *WRONG, good]))
    done = publish("--from", file)
    assert done.returncode == 3
    said = [line for line in done.stderr.splitlines() if line.startswith(f"{file}:")]
    for number, (text, line) in enumerate(zip(WRONG.values(), said, strict=True), start=2):
        assert line.startswith(f"{file}:{number}: ")
        assert text in line
    assert f"2 routed, {len(WRONG)} wrong" in done.stdout
    assert "Traceback" not in done.stderr
    assert ready_in(provisioned.address, "jobs.normal") == 2


def test_strict_sends_nothing_behind_the_first_wrong_line(publish, provisioned, tmp_path) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text(lines_of(5) + '{"name": "demo.ecko"}\n' + lines_of(5))
    done = publish("--from", file, "--strict")
    assert done.returncode == 2
    assert f"{file}:6: " in done.stderr
    assert "5 routed, 1 wrong" in done.stdout
    assert ready_in(provisioned.address, "jobs.normal") == 5


def test_refused_jobs_are_said_and_the_others_go_on(publish, provisioned, tmp_path) -> None:
    file = tmp_path / "jobs.jsonl"
    huge = json.dumps({"name": "demo.echo", "args": ["x" * 20_000_000]})
    file.write_text("\n".join(['{"name": "test.nowhere"}', huge, lines_of(1)]))
    done = publish("--from", file, "--json")
    assert done.returncode in (3, 5), done.stderr
    outcomes = [json.loads(line)["outcome"] for line in done.stdout.splitlines()]
    assert outcomes[0] == "unroutable"
    assert outcomes[1] in ("rejected", "wrong")
    assert outcomes[2] == "routed"
    assert ready_in(provisioned.address, "jobs.normal") == 1


@pytest.mark.parametrize(
    ("content", "code"), [("", 0), ("\n\r\n\n", 0), ("\ufeff", 0), ("\x00\xff" * 1000, 2)]
)
def test_files_without_a_job(publish, tmp_path, content, code) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text(content)
    done = publish("--from", file)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--from", "missing.jsonl"], "there is no file missing.jsonl"),
        (["--from", "."], "is a directory"),
        (["--from", "-", "--resume"], "cannot be resumed"),
        (["--from", "-", "demo.echo"], "give no NAME"),
        (["--from", "x", "--resume", "--restart"], "exclude each other"),
        (["demo.echo", "--resume"], "go with --from"),
        ([], "which job"),
    ],
)
def test_what_cannot_be_meant_is_refused(publish, args, text) -> None:
    done = publish(*args, input="")
    assert done.returncode == 2
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_rabbitmq_it_is_exit_4(publish, tmp_path) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text(lines_of(1))
    done = publish("--from", file, "--url", "amqp://127.0.0.1:1/")
    assert done.returncode == 4
    assert "Connection refused" in done.stderr


def test_resume_skips_what_was_confirmed_and_takes_what_was_mended(
    publish, provisioned, tmp_path
) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text(lines_of(3) + '{"name": "demo.ecko"}\n' + lines_of(1))
    assert publish("--from", file).returncode == 3
    again = publish("--from", file)
    assert again.returncode == 2
    assert "--resume skips those" in again.stderr
    file.write_text(lines_of(3) + '{"name": "demo.echo", "args": [77]}\n' + lines_of(2))
    resumed = publish("--from", file, "--resume", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert len(resumed.stdout.splitlines()) == 2
    found = [first_argument(body) for _, body in drained(provisioned.address)]
    assert found == [0, 1, 2, 0, 77, 1]
    nothing = publish("--from", file, "--resume")
    assert nothing.returncode == 0
    assert "6 skipped" in nothing.stdout
    # All is done: whoever asks for it anew gets all of it.
    assert "6 routed" in publish("--from", file).stdout


def test_resume_refuses_another_file(publish, tmp_path) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text(lines_of(3) + "wrong\n")
    publish("--from", file)
    file.write_text(lines_of(3).replace("0", "9") + "wrong\n")
    done = publish("--from", file, "--resume")
    assert done.returncode == 2
    assert "is not the file" in done.stderr
    assert "4 lines" not in publish("--from", file).stderr


def test_a_run_that_is_killed_is_resumed_without_loss(env, provisioned, publish, tmp_path) -> None:
    count = 20_000
    file = tmp_path / "jobs.jsonl"
    file.write_text(lines_of(count))
    command = [sys.executable, "-m", "rabbitry", "jobs", "publish", "--from", str(file), "--json"]
    record = file.with_name("jobs.jsonl.progress")
    with subprocess.Popen(
        command,
        env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path)},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as run:
        until(
            lambda: record.exists() and record.read_bytes().count(b"\n") > 5,
            timeout_s=30,
            what="the record of some confirmed lines",
        )
        run.kill()
    confirmed = max(json.loads(line).get("upto", 0) for line in record.read_text().splitlines())
    assert 0 < confirmed < count
    done = publish("--from", file, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    routed = [json.loads(line)["id"] for line in done.stdout.splitlines()]
    assert len(routed) == count - confirmed
    found = drained(provisioned.address)
    ids: dict[int, set[str]] = {}
    for id, body in found:
        ids.setdefault(first_argument(body), set()).add(id)
    # Nothing is missing, and what is there twice has the same id twice.
    assert sorted(ids) == list(range(count))
    assert {len(each) for each in ids.values()} == {1}
    times = Counter(id for id, _ in found)
    twice = {id for id, number in times.items() if number > 1}
    assert twice <= set(routed)
    assert len(found) == count + len(twice)


def test_ctrl_c_says_what_is_confirmed(env, provisioned) -> None:
    reading, writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-m", "rabbitry", "jobs", "publish", "--from", "-", "--json"],
        env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path)},
        cwd=Path(__file__).parents[2],
        stdin=reading,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        os.close(reading)
        os.write(writing, lines_of(10).encode())
        until(
            lambda: ready_in(provisioned.address, "jobs.normal") == 10,
            timeout_s=20,
            what="ten jobs in the queue",
        )
        run.send_signal(signal.SIGINT)
        output, errors = run.communicate(timeout=20)
    os.close(writing)
    assert run.returncode == 130, errors
    assert len(output.splitlines()) == 10
    assert "10 routed" in errors
    assert "Traceback" not in errors


def read_all(terminal: int, into: bytearray) -> None:
    """Read a terminal until nobody is at its other end."""
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 65536):
            into += part


def test_on_a_terminal_there_is_a_bar_and_stdout_stays_clean(env, provisioned, tmp_path) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text(lines_of(3000) + "wrong\n")
    main, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "rabbitry", "jobs", "publish", "--from", str(file), "--json"],
        env={**env, "RABBITRY_TOPOLOGY": str(provisioned.path), "TERM": "xterm"},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=terminal,
    ) as run:
        os.close(terminal)
        shown = bytearray()
        reader = threading.Thread(target=read_all, args=(main, shown))
        reader.start()
        output, _ = run.communicate(timeout=60)
        reader.join()
    os.close(main)
    assert run.returncode == 3
    assert b"jobs/s" in shown
    assert b"\x1b[" in shown
    assert b"jobs.jsonl:3001: this is not JSON" in shown
    assert all(json.loads(line) for line in output.splitlines())
    assert len(output.splitlines()) == 3001
