"""The processes that a benchmark starts: workers, publishers, other people's commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
PYTHON = (sys.executable, "-m")
_LOG_END = 2_000

T = TypeVar("T")


@contextmanager
def started(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process in a group of its own; end the group, at the latest, at the end.

    Args:
        command: what to run, in the project's folder.
        log: where its output goes; the end of it is printed when the benchmark fails.
        environment: added to this process's.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command),
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    except (Exception, SystemExit):
        print(log.read_text(errors="replace")[-_LOG_END:], file=sys.stderr)
        raise
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def stop(process: subprocess.Popen[bytes], *, timeout_s: float = 40.0) -> None:
    """Ask a process to end and wait until it has.

    Raises:
        SystemExit: it does not end.
    """
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"{_name(process)} did not end within {timeout_s:g} s") from None


def until(
    condition: Callable[[], T],
    what: str,
    *,
    timeout_s: float,
    process: subprocess.Popen[bytes] | None = None,
    pause_s: float = 0.005,
) -> T:
    """Ask again and again until the answer is true; return it.

    Args:
        condition: the question.
        what: is waited for, for the error.
        timeout_s: seconds to wait.
        process: without which it will never be.
        pause_s: seconds between two questions: they cost a core's time.

    Raises:
        SystemExit: it did not come, or the process ended by itself.
    """
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if process is not None and process.poll() is not None:
            raise SystemExit(f"{_name(process)} ended by itself while waited for: {what}")
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {timeout_s:g} s for {what}")
        time.sleep(pause_s)
    return found


def told(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, given: bytes = b""
) -> Any:
    """Run a command to its end and return the JSON that it prints.

    Args:
        command: what to run, in the project's folder.
        environment: added to this process's.
        given: its standard input.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run(
        list(command),
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        input=given,
        capture_output=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr.decode(errors='replace')}")
    return json.loads(done.stdout)


def _name(process: subprocess.Popen[bytes]) -> str:
    command = process.args
    return " ".join(command) if isinstance(command, list) else str(command)
