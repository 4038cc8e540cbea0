"""The command line as people use it: data, exit codes, and what bad input says."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CSV = """\ufeff"when","a ""quoted"" name","value, with comma"
2020-01-01,1.5,10
2020-01-02,,20
2020-01-03,2.5,NA
2020-01-04,-3e2,40
"""


@pytest.fixture
def jobs(rabbitry, provisioned):
    """Run `rabbitry jobs …` on the small topology."""
    return lambda *args, **kwargs: rabbitry(
        "jobs", *args, "--topology", str(provisioned.path), **kwargs
    )


def test_a_column_of_an_unknown_csv_is_an_argument(jobs, worker, tmp_path) -> None:
    file = tmp_path / "strange.csv"
    file.write_text(CSV, encoding="utf-8")
    done = jobs("call", "demo.echo", f'value=@{file}:a "quoted" name', "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer.keys() == {"id", "outcome", "result", "seconds"}
    assert answer["outcome"] == "result"
    assert answer["result"] == [1.5, None, 2.5, -300.0]
    assert 0 < answer["seconds"] < 20


def test_publishing_says_what_became_of_each_job(jobs) -> None:
    done = jobs("publish", "demo.add", "a=1", "b=2", "--json")
    assert done.returncode == 0
    line = json.loads(done.stdout)
    assert (line["name"], line["outcome"], line["reason"]) == ("demo.add", "routed", None)
    lost = jobs("publish", "test.nowhere", "--json")
    assert lost.returncode == 5
    assert json.loads(lost.stdout)["outcome"] == "unroutable"
    assert "nowhere" in json.loads(lost.stdout)["reason"]


def test_jobs_are_listed(jobs) -> None:
    names = [json.loads(line)["name"] for line in jobs("list", "--json").stdout.splitlines()]
    assert names[:2] == ["demo.add", "demo.echo"]
    table = jobs("list").stdout.splitlines()
    assert table[0].split()[0] == "JOB"
    assert "│" not in "".join(table)


def test_an_error_of_the_task_is_one_sentence_and_exit_1(jobs, worker) -> None:
    done = jobs("call", "demo.fail", "message=no luck")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.strip().count("\n") == 0
    assert "DemoFailure: no luck" in done.stderr
    told = jobs("call", "demo.fail", "message=no luck", "--json")
    assert json.loads(told.stdout)["outcome"] == "error"
    debug = jobs("call", "demo.fail", "--debug")
    assert "Traceback" in debug.stderr


def test_a_call_that_nobody_answers_is_exit_6(jobs) -> None:
    done = jobs("call", "demo.echo", "--timeout", "1s")
    assert done.returncode == 6
    assert "rabbitry worker run" in done.stderr


BAD = {
    "an unknown job": (["jobs", "publish", "demo.ad"], 2, "did you mean 'demo.add'"),
    "an argument of the wrong type": (
        ["jobs", "call", "signal.smooth", "series=[1,2]", "window=x"],
        2,
        "window",
    ),
    "an argument that is missing": (["jobs", "call", "signal.smooth"], 2, "series"),
    "an argument without =": (["jobs", "publish", "demo.add", "a"], 2, "KEY=VALUE"),
    "a column that is not there": (
        ["jobs", "call", "signal.smooth", "series=@{root}/examples/data/sunspots.csv:SPOTS"],
        2,
        "SUNACTIVITY",
    ),
    "a file that is not there": (
        ["jobs", "call", "signal.smooth", "series=@missing.csv:X"],
        2,
        "missing.csv",
    ),
    "no topology": (["jobs", "list", "--topology", "missing.yaml"], 2, "missing.yaml"),
    "no RabbitMQ": (["ping", "--url", "amqp://127.0.0.1:1/"], 4, "rabbitry broker up"),
    "no RabbitMQ to publish to": (
        ["jobs", "publish", "demo.echo", "--url", "amqp://127.0.0.1:1/"],
        4,
        "Connection refused",
    ),
    "no RabbitMQ to call through": (
        ["jobs", "call", "demo.echo", "--url", "amqp://127.0.0.1:1/"],
        4,
        "Connection refused",
    ),
    "no RabbitMQ to work for": (
        ["worker", "run", "normal", "--one-shot", "--url", "amqp://127.0.0.1:1/"],
        4,
        "Connection refused",
    ),
    "a URL that is none": (["ping", "--url", "rabbit"], 2, "amqp://"),
    "an unknown worker": (["worker", "run", "hihg"], 1, "did you mean 'high'"),
    "an unknown command": (["jobz"], 2, "jobz"),
    "an unknown option": (["jobs", "list", "--jsn"], 2, "--json"),
    "a timeout of nothing": (["jobs", "call", "demo.echo", "--timeout", "0s"], 2, "timeout"),
    "a duration that is none": (["jobs", "call", "demo.echo", "--timeout", "soon"], 2, "soon"),
    "a virtual host that is missing": (
        ["jobs", "publish", "demo.echo", "--url", "{elsewhere}"],
        4,
        "topology apply",
    ),
    "a wrong password": (["jobs", "publish", "demo.echo", "--url", "{wrong}"], 4, "password"),
    "queues that are missing": (["worker", "run", "normal"], 1, "topology apply"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_the_right_exit_code(
    case: str, rabbitry, rabbitmq, vhost
) -> None:
    args, code, text = BAD[case]
    address = rabbitmq.address(vhost)
    wrong = address.url.replace(f":{address.password}@", ":wrong@", 1)
    places = {"root": ROOT, "elsewhere": rabbitmq.url("no such place"), "wrong": wrong}
    started = time.monotonic()
    done = rabbitry(*(str(arg).format_map(places) if "{" in arg else arg for arg in args))
    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert "wrong@" not in done.stderr
    assert time.monotonic() - started < 20


def test_a_typo_in_the_topology_is_found_with_its_line(rabbitry, tmp_path) -> None:
    text = (ROOT / "topology.yaml").read_text().replace("max_length:", "max_lenght:", 1)
    file = tmp_path / "topology.yaml"
    file.write_text(text)
    done = rabbitry("jobs", "list", "--topology", str(file))
    line = text[: text.index("max_lenght")].count("\n") + 1
    assert done.returncode == 2
    assert f"{file}:{line}:" in done.stderr
    assert "max_length" in done.stderr


def test_help_is_quick() -> None:
    def seconds(*command: str) -> float:
        # Of the processor: what else the machine does is none of its doing.
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    differences = []
    for _ in range(5):
        bare = seconds("-c", "pass")
        differences.append(seconds("-m", "rabbitry", "--help") - bare)
    assert statistics.median(differences) < 0.15


def test_every_command_has_help_with_examples(rabbitry) -> None:
    def check(path: tuple[str, ...]) -> None:
        done = rabbitry(*path, "--help")
        assert done.returncode == 0
        _, _, commands = done.stdout.partition("Commands:")
        for line in commands.strip("\n").partition("\n\n")[0].splitlines():
            if line.startswith("  ") and not line.startswith("   "):
                check((*path, line.split()[0]))
        assert "Examples:" in done.stdout or "Commands:" in done.stdout, path

    check(())


def test_the_reference_of_commands_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr


def test_ping_says_pong(rabbitry) -> None:
    done = rabbitry("ping")
    assert done.returncode == 0
    assert done.stdout.startswith("PONG from RabbitMQ 4.")
    answer = json.loads(rabbitry("ping", "--json").stdout)
    assert answer["round_trip_ms"] > 0
