"""`rabbitry topology` as people run it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.management import Management

Run = Callable[..., "subprocess.CompletedProcess[str]"]

FILE = """\
version: 1
name: sample
exchanges: {jobs: {type: topic}}
queues:
  work:
    max_length: 5
    bindings: [{exchange: jobs, routing_key: "#"}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sample.yaml"
    path.write_text(FILE)
    return path


def test_plan_apply_plan(rabbitry: Run, file: Path) -> None:
    before = rabbitry("topology", "plan", "--topology", str(file))
    assert before.returncode == 3
    assert "+ queue 'work'" in before.stdout
    assert "definition.max-length: 5" in before.stdout
    applied = rabbitry("topology", "apply", "--yes", "--topology", str(file))
    assert applied.returncode == 0, applied.stderr
    assert "created binding 'jobs' to queue 'work', key '#'" in applied.stdout
    after = rabbitry("topology", "plan", "--topology", str(file))
    assert (after.returncode, after.stdout) == (0, "")
    assert "Nothing to do" in after.stderr
    again = rabbitry("topology", "apply", "--topology", str(file))
    assert again.returncode == 0


def test_json_is_alone_on_stdout(rabbitry: Run, file: Path) -> None:
    plan = json.loads(rabbitry("topology", "plan", "--json", "--topology", str(file)).stdout)
    assert plan["same"] is False
    assert {change["action"] for change in plan["changes"]} == {"create"}
    done = json.loads(
        rabbitry("topology", "apply", "--json", "--yes", "--topology", str(file)).stdout
    )
    assert done["complete"] is True
    assert len(done["done"]) == len(plan["changes"])
    plan = json.loads(rabbitry("topology", "plan", "--json", "--topology", str(file)).stdout)
    assert (plan["changes"], plan["same"]) == ([], True)


def test_apply_asks_for_yes_away_from_a_terminal(rabbitry: Run, file: Path) -> None:
    refused = rabbitry("topology", "apply", "--topology", str(file))
    assert refused.returncode == 2
    assert "add --yes" in refused.stderr
    assert rabbitry("topology", "plan", "--topology", str(file)).returncode == 3


def answer_on_a_terminal(answer: str, arguments: list[str], env: dict[str, str]) -> tuple[int, str]:
    """Run rabbitry on a pseudo terminal; answer its question; return code and output."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, [sys.executable, "-m", "rabbitry", *arguments], env)
    output, answered, deadline = "", False, time.monotonic() + 60
    while time.monotonic() < deadline:
        select.select([terminal], [], [], 1)
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        output += chunk.decode()
        if not answered and "[y/N]" in output:
            os.write(terminal, answer.encode() + b"\n")
            answered = True
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), output


def test_on_a_terminal_apply_asks_and_colours(file: Path, env: dict[str, str], vhost: str) -> None:
    arguments = ["topology", "apply", "--topology", str(file)]
    code, output = answer_on_a_terminal("n", arguments, env)
    assert code == 130
    assert f"Apply to virtual host '{vhost}'?" in output
    assert "\x1b[32m+ queue 'work'" in output
    code, output = answer_on_a_terminal("y", arguments, env | {"NO_COLOR": "1"})
    assert code == 0
    assert "created queue 'work'" in output
    assert "\x1b[32m" not in output


def test_what_must_be_replaced_is_shown_left_and_exits_3(
    rabbitry: Run, file: Path, rabbitmq: Any, vhost: str
) -> None:
    with Management(rabbitmq.address(vhost)) as management:
        arguments = {"x-queue-type": "classic"}
        management.put("queues", vhost, "work", body={"durable": True, "arguments": arguments})
    applied = rabbitry("topology", "apply", "--yes", "--topology", str(file))
    assert applied.returncode == 3
    assert "± queue 'work'" in applied.stdout
    assert "type: classic → quorum" in applied.stdout
    assert "Not done: replace queue 'work' (RabbitMQ cannot change type" in applied.stderr
    left = rabbitry("topology", "apply", "--topology", str(file))
    assert left.returncode == 3
    assert "Not done: replace queue 'work'" in left.stderr


def test_the_virtual_host_of_the_url_wins_and_is_made(
    rabbitry: Run, file: Path, rabbitmq: Any
) -> None:
    name = f"from the url/{uuid.uuid4().hex}"
    url = rabbitmq.url(name)
    file.write_text(FILE + "vhost: {name: from-the-file}\n")
    with Management(rabbitmq.address(name)) as management:
        try:
            done = rabbitry("topology", "apply", "--yes", "--url", url, "--topology", str(file))
            assert done.returncode == 0, done.stderr
            names = {each["name"] for each in management.get("vhosts")}
            assert name in names
            assert "from-the-file" not in names
        finally:
            management.delete("vhosts", name)


def test_lint_prints_file_line_column_level_rule(rabbitry: Run, file: Path) -> None:
    assert rabbitry("topology", "lint", "--topology", str(file)).returncode == 0
    file.write_text(FILE.replace("max_length", "max_lenght"))
    wrong = rabbitry("topology", "lint", "--topology", str(file))
    assert wrong.returncode == 1
    assert wrong.stdout == (
        f"{file}:6:5: error unknown-key: unknown key 'max_lenght' (did you mean 'max_length'?)\n"
    )
    as_json = json.loads(rabbitry("topology", "lint", "--json", "--topology", str(file)).stdout)
    assert (as_json["line"], as_json["column"], as_json["rule"]) == (6, 5, "unknown-key")
    file.write_text("a: [")
    assert re.match(
        rf"{re.escape(str(file))}:1:\d+: error file: this is not YAML",
        rabbitry("topology", "lint", "--topology", str(file)).stdout,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["plan", "--topology", "missing.yaml"], 2, "missing.yaml: there is no such file"),
        (["plan", "--url", "amqp://guest:guest@127.0.0.1:1/"], 4, "management"),
        (["plan", "--url", "http://localhost/"], 2, "must begin with amqp://"),
    ],
)
def test_bad_input_is_one_sentence_and_a_code(
    rabbitry: Run, env: dict[str, str], file: Path, arguments: list[str], code: int, words: str
) -> None:
    if arguments[-1].startswith("amqp"):
        env["RABBITRY_MANAGEMENT_URL"] = "http://127.0.0.1:1"
    if "--topology" not in arguments:
        arguments = [*arguments, "--topology", str(file)]
    refused = rabbitry("topology", *arguments)
    assert refused.returncode == code
    assert words in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert refused.stdout == ""


def test_a_wrong_password_is_never_printed(
    rabbitry: Run, file: Path, rabbitmq: Any, vhost: str
) -> None:
    url = rabbitmq.url(vhost).replace("://", "://nobody:sesame@", 1)
    url = re.sub(r"@[^@/]*@", "@", url)
    refused = rabbitry("topology", "plan", "--url", url, "--topology", str(file))
    assert refused.returncode == 4
    assert "refuses user 'nobody'" in refused.stderr
    assert "sesame" not in refused.stderr + refused.stdout


def test_a_topology_that_asks_for_more_than_there_is_is_refused(rabbitry: Run, file: Path) -> None:
    file.write_text(FILE + 'broker: {requires: "99.0"}\n')
    refused = rabbitry("topology", "plan", "--topology", str(file))
    assert refused.returncode == 4
    assert "the topology file requires 99.0" in refused.stderr


def test_the_schema_in_the_documentation_is_the_one_that_is_printed(rabbitry: Run) -> None:
    printed = rabbitry("topology", "schema")
    assert printed.returncode == 0
    path = Path(__file__).parents[2] / "docs" / "reference" / "topology.schema.json"
    assert json.loads(printed.stdout) == json.loads(path.read_text())


def test_a_saved_plan_is_applied_or_refused(rabbitry: Run, file: Path, tmp_path: Path) -> None:
    kept = tmp_path / "changes.plan"
    arguments = ("--topology", str(file))
    assert rabbitry("topology", "plan", "--out", kept, *arguments).returncode == 3
    assert json.loads(kept.read_text())["rabbitry_plan"] == 1
    applied = rabbitry("topology", "apply", kept, "--yes", *arguments)
    assert applied.returncode == 0, applied.stderr
    refused = rabbitry("topology", "apply", kept, "--yes", *arguments)
    assert refused.returncode == 1
    assert "RabbitMQ has changed since the plan was made" in refused.stderr
    kept.write_text("{}")
    broken = rabbitry("topology", "apply", kept, "--yes", *arguments)
    assert broken.returncode == 2
    assert "this is not a plan" in broken.stderr


def test_prune_drift_and_destroy(rabbitry: Run, file: Path, rabbitmq: Any, vhost: str) -> None:
    arguments = ("--topology", str(file))
    assert rabbitry("topology", "apply", "--yes", *arguments).returncode == 0
    assert rabbitry("topology", "drift", *arguments).returncode == 0
    with Management(rabbitmq.address(vhost)) as management:
        management.post("bindings", vhost, "e", "jobs", "q", "work", body={"routing_key": "x"})
    drifted = rabbitry("topology", "drift", *arguments)
    assert drifted.returncode == 3
    assert drifted.stdout == "binding 'jobs' to queue 'work', key 'x': added on the broker\n"
    as_json = json.loads(rabbitry("topology", "drift", "--json", *arguments).stdout)
    assert (as_json["same"], as_json["drift"][0]["what"]) == (False, "added")
    file.write_text("version: 1\nname: sample\nexchanges: {jobs: {type: topic}}\n")
    left = rabbitry("topology", "plan", *arguments)
    assert left.returncode == 0
    assert "Left: queue 'work' (the file no longer names it; --prune deletes it)" in left.stderr
    pruned = rabbitry("topology", "plan", "--prune", *arguments)
    assert pruned.returncode == 3
    assert "- queue 'work'" in pruned.stdout
    gone = rabbitry("topology", "destroy", "--yes", *arguments)
    assert gone.returncode == 0, gone.stderr
    assert "deleted queue 'work'" in gone.stdout
    again = rabbitry("topology", "destroy", "--yes", *arguments)
    assert again.returncode == 0
    assert "manages nothing" in again.stderr
