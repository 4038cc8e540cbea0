"""What runs commands in forks: they are as those of a Python of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import Commands


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with Commands(os.environ) as commands:
        yield commands


@pytest.mark.parametrize("args", [["jobs", "list"], ["topology", "lint"], ["--version"], ["jbos"]])
def test_exit_code_and_output_are_those_of_a_python_of_its_own(
    commands: Commands, tmp_path: Path, args: list[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("version: 1\nname: mine\njobs: {a: {exchange: no}}\n")
    env = {**os.environ, "RABBITRY_TOPOLOGY": "mine.yaml"}
    alone = subprocess.run(
        [sys.executable, "-m", "rabbitry", *args],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    forked = commands.run(args, env=env, cwd=tmp_path, timeout_s=60)
    assert (forked.returncode, forked.stdout, forked.stderr) == (
        alone.returncode,
        alone.stdout,
        alone.stderr,
    )
    assert alone.stdout + alone.stderr


def test_one_that_takes_too_long_is_killed_and_the_next_runs(commands: Commands) -> None:
    settings = {"env": os.environ, "cwd": Path.cwd()}
    with pytest.raises(subprocess.TimeoutExpired):
        commands.run(["--help"], timeout_s=0, **settings)
    assert commands.run(["--help"], timeout_s=60, **settings).returncode == 0


def test_what_python_reads_at_its_start_must_agree(commands: Commands) -> None:
    assert commands.agree({**os.environ, "RABBITRY_URL": "amqp://elsewhere"})
    assert not commands.agree({**os.environ, "PYTHONWARNINGS": "error"})
    assert not commands.agree({**os.environ, "LC_ALL": "C"})
