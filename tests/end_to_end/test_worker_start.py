"""What keeps a worker from starting is said in one sentence, before it consumes anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from broker.management import Management
from tests.integration.conftest import Provisioned
from tests.provision import QUICK, consumers_of, ready_in
from tests.waiting import until

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def run(provisioned: Provisioned, env: dict[str, str], tmp_path: Path):
    """Run a worker that cannot start, on a file of the test's own."""

    def of(name: str = "normal", *, text: str = "", **more: str) -> Done:
        if text:
            provisioned.path.write_text(text)
        command = [sys.executable, "-m", "rabbitry", "worker", "run", name]
        command += ["--topology", str(provisioned.path)]
        done = subprocess.run(
            command,
            env={**env, **more},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert consumers_of(provisioned.address, "jobs.normal") == 0
        return done

    return of


def changed(old: str, new: str) -> str:
    text = dedent(QUICK)
    assert old in text
    return text.replace(old, new)


ONE_JOB = """
jobs:
  demo.add: {task: "one:one", exchange: jobs, routing_key: normal.demo.add}
workers:
  normal: {queues: [jobs.normal], concurrency: 2}
"""
ADD = '{task: "consumers.jobs.demo:add", exchange: jobs, routing_key: normal.demo.add}'


def error_of(done: Done) -> str:
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    return line


def test_a_worker_that_the_file_does_not_have(run) -> None:
    done = run("norml")
    assert done.returncode == 1
    assert "no worker 'norml' (did you mean 'normal'?)" in error_of(done)
    assert "Traceback" not in done.stderr


def test_a_task_that_cannot_be_imported_shows_where(run, tmp_path) -> None:
    (tmp_path / "wrong.py").write_text("import helper_of_wrong\n")
    (tmp_path / "helper_of_wrong.py").write_text("def f():\n    return 1 / 0\nf()\n")
    done = run(text=changed("consumers.jobs.demo:add", "wrong:add"))
    assert done.returncode == 1
    assert "'wrong:add' of job 'demo.add' cannot be imported: ZeroDivisionError" in error_of(done)
    files = [line.split('"')[1] for line in done.stderr.splitlines() if line.startswith("  File")]
    # The frames of that import, and none of ours.
    assert [Path(file).name for file in files] == ["wrong.py", *["helper_of_wrong.py"] * 2]


def test_a_module_that_is_not_there(run) -> None:
    done = run(text=changed("consumers.jobs.demo:add", "nothing_here:add"))
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'nothing_here'" in error_of(done)


def test_two_tasks_for_one_job(run, tmp_path) -> None:
    task = "from rabbitry import job\n\n@job('demo.add')\ndef {}(a, b):\n    return a\n"
    (tmp_path / "one.py").write_text(task.format("one") + "\nimport two\n")
    (tmp_path / "two.py").write_text(task.format("two"))
    done = run(text=QUICK.partition("jobs:\n  demo.add")[0] + ONE_JOB)
    assert done.returncode == 1
    assert "job 'demo.add' has 2 tasks, one:one and two:two" in error_of(done)


def test_a_task_whose_signature_is_not_what_the_file_says(run) -> None:
    arguments = "arguments: {a: {type: string}, c: {type: number}}, exchange: jobs, routing_key: n"
    done = run(text=changed(ADD, ADD.replace("exchange: jobs, routing_key: n", arguments)))
    assert done.returncode == 1
    error = error_of(done)
    assert "job 'demo.add': its task 'consumers.jobs.demo:add' does not fit" in error
    assert "the file has the argument 'c', which the task does not take" in error
    assert "the task needs the argument 'b', which the file does not have" in error
    assert "'a' is of type string in the file, and the task takes integer, number" in error


def test_a_queue_that_is_missing(run, provisioned) -> None:
    with Management(provisioned.address) as management:
        management.delete("queues", provisioned.address.vhost_name, "jobs.tiny")
    done = run(text=changed("queues: [jobs.normal]", "queues: [jobs.normal, jobs.tiny]"))
    assert done.returncode == 1
    assert "the queue 'jobs.tiny' does not exist" in error_of(done)
    assert "rabbitry topology apply" in error_of(done)


def test_an_exchange_for_dead_letters_that_is_missing(run, provisioned) -> None:
    with Management(provisioned.address) as management:
        management.delete("exchanges", provisioned.address.vhost_name, "jobs.dead")
    done = run()
    assert done.returncode == 1
    assert "the exchange 'jobs.dead' does not exist" in error_of(done)


def test_a_queue_that_is_not_what_the_file_says(run) -> None:
    done = run(text=changed("limit: 2", "limit: 3").replace("max_length: 100000", "max_length: 7"))
    assert done.returncode == 3
    error = error_of(done)
    assert "delivery-limit is 2, and the file says 3" in error
    assert "max-length is 100000, and the file says 7" in error
    assert "consumer-timeout" not in error


def test_a_wrong_password_ends_it_at_once(run, provisioned) -> None:
    address = provisioned.address
    url = f"amqp://{address.user}:wrong@{address.host}:{address.port}/{address.vhost_name}"
    done = run(RABBITRY_URL=url)
    assert done.returncode == 4
    assert f"refuses user '{address.user}'" in error_of(done)
    assert "wrong" not in done.stderr


def test_a_management_api_that_does_not_answer_keeps_nobody_waiting(provisioned, start) -> None:
    # A port of nobody's: what is there cannot be compared, and jobs are run all the same.
    daemon = start(
        "env",
        "RABBITRY_MANAGEMENT_URL=http://127.0.0.1:9",
        *(sys.executable, "-m", "rabbitry", "worker", "run", "normal"),
    )
    assert "are not compared with the file" in daemon.log
    assert daemon.stop() == 0


def test_it_waits_for_a_rabbitmq_that_does_not_answer_yet(start, free_port) -> None:
    daemon = start(
        "env",
        f"RABBITRY_URL=amqp://guest:guest@127.0.0.1:{free_port}/",
        *(sys.executable, "-m", "rabbitry", "worker", "run", "normal"),
        queue=None,
    )
    until(lambda: daemon.log.count("trying again") >= 2, timeout_s=30, what="two attempts")
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_one_shot_drains_its_queues_and_ends(provisioned, start) -> None:
    from producers.publisher import Publisher

    with Publisher(provisioned.topology, provisioned.url) as publisher:
        receipts = [publisher.publish("demo.sleep", seconds=0.01) for _ in range(50)]
        for receipt in receipts:
            receipt.wait()
    daemon = start(
        *(sys.executable, "-m", "rabbitry", "worker", "run", "normal", "--one-shot"), queue=None
    )
    assert daemon.process.wait(60) == 0, daemon.log
    assert daemon.log.count("succeeded in") == 50
    assert ready_in(provisioned.address, "jobs.normal") == 0
