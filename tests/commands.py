"""The command `rabbitry` as a process of its own, without the half second that imports take.

One process has imported the libraries; each command runs in a fork of it, with an environment, a
folder and files of its own. It is what `python -m rabbitry` is in all but the imports.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
# What nearly every command imports; of it nothing reads the environment when it is imported, or
# begins a thread.
_LIBRARIES = (
    *("amqp", "httpx", "jsonschema", "kombu", "pydantic", "rich.console", "rich.progress"),
    *("rich.table", "ruamel.yaml", "rabbitry.cli", "broker.cli", "broker.connection"),
    *("broker.confirmed", "broker.management", "broker.topology.apply", "broker.topology.compile"),
    *("broker.topology.export", "broker.topology.load", "broker.topology.observe"),
    *("broker.topology.plan", "producers.publisher"),
)
# Bytes of a process id or an exit code.
NUMBER = 8
# Python reads these when it begins.
_OF_PYTHON = ("PYTHON", "LANG", "LC_")


class Commands:
    """Runs commands, each in a fork of a process that is started for the first; used by one thread.

    Args:
        environment: of that process; of a command only what Python reads at its start must agree.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._server: subprocess.Popen[bytes] | None = None
        self._talk: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._talk.close()
            self._server.wait(30)

    def agree(self, environment: Mapping[str, str]) -> bool:
        """Say whether a command of this environment may be run here."""
        return _of_python(environment) == _of_python(self._environment)

    def run(
        self, args: list[str], *, env: Mapping[str, str], cwd: Path, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run `rabbitry` with these arguments to its end, nothing on its standard input.

        Raises:
            subprocess.TimeoutExpired: it was killed since it took longer.
        """
        if self._server is None:
            self._start()
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            asked = {"args": args, "env": dict(env), "cwd": str(cwd)}
            socket.send_fds(self._talk, [b"\0"], [out.fileno(), err.fileno()])
            self._talk.sendall(json.dumps(asked).encode() + b"\n")
            pid = self._number()
            # Readable as soon as it has ended.
            in_time = select.select([self._talk], [], [], timeout_s)[0]
            if not in_time:
                os.kill(pid, signal.SIGKILL)
            code = self._number()
            if not in_time:
                raise subprocess.TimeoutExpired(args, timeout_s)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(args, code, out.read(), err.read())

    def _number(self) -> int:
        return int.from_bytes(self._talk.recv(NUMBER, socket.MSG_WAITALL), "big", signed=True)

    def _start(self) -> None:
        self._talk, theirs = socket.socketpair()
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.commands", str(theirs.fileno())],
            env=self._environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()


def _of_python(environment: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key.startswith(_OF_PYTHON)}


def _serve(talk: socket.socket) -> dict[str, Any]:
    """Fork at each request; return the request in the child, and never in the parent."""
    while True:
        _, files, _, _ = socket.recv_fds(talk, 1, 2)
        if not files:
            os._exit(0)
        asked: dict[str, Any] = json.loads(talk.makefile().readline())
        child = os.fork()
        if not child:
            for number, file in enumerate(files, start=1):
                os.dup2(file, number)
                os.close(file)
            talk.close()
            return asked
        for file in files:
            os.close(file)
        talk.sendall(child.to_bytes(NUMBER, "big"))
        _, status = os.waitpid(child, 0)
        talk.sendall(os.waitstatus_to_exitcode(status).to_bytes(NUMBER, "big", signed=True))


def _main() -> None:
    for name in _LIBRARIES:
        importlib.import_module(name)
    # Else the first collection of each child writes on, and so copies, all of it.
    gc.collect()
    gc.freeze()
    asked = _serve(socket.socket(fileno=int(sys.argv[1])))
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    sys.path[0] = asked["cwd"]
    sys.argv[1:] = asked["args"]
    runpy.run_module("rabbitry", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
