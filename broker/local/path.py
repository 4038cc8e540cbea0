"""The `rabbitmq-server` on the PATH, 4.0 or later, with settings and data of its own."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

from broker.local import settings
from broker.local.debian import tail, tail_command
from broker.local.process import NODE_MARKER, spawn, stop
from broker.local.state import Home, Node, Series, State
from broker.local.way import Say, Unavailable

OLDEST = (4, 0)
PROBE_MARKER = "RABBITRY_VERSION_PROBE"
# Debian's command on the PATH changes to the user rabbitmq; the server itself stands here.
_DEBIAN = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class OnPath:
    """Runs a node by the installed server; never speaks to a node that it may run already.

    Args:
        series: of RabbitMQ; None for whichever is installed.
    """

    def __init__(self, series: Series | None = None) -> None:
        self._series = series

    def prepare(self, home: Home, say: Say) -> None:
        """Check that there is one, and that it is new enough, or of the series."""
        version = _version(_server())
        found = ".".join(map(str, version))
        if version < OLDEST:
            raise Unavailable(f"the rabbitmq-server on the PATH is {found}, 4.0 is the oldest")
        if self._series is not None and not found.startswith(f"{self._series}."):
            raise Unavailable(f"the rabbitmq-server on the PATH is {found}, not {self._series}")

    def start(self, home: Home, state: State, node: Node) -> Node:
        folder = home.folder("path", self._series)
        settings.write(folder, state, node, cookie=secrets.token_hex(32), series=self._series)
        environment = dict(settings.environment(home, node, str(folder)))
        environment["PATH"] = os.environ.get("PATH", environment["PATH"])
        process = spawn([str(_server())], env=environment, log=folder / "node.log")
        return Node(name=node.name, ports=node.ports, process=process)

    def running(self, home: Home, node: Node) -> bool:
        return node.process is not None and node.process.alive()

    def stop(self, home: Home, node: Node | None) -> bool:
        return stop(NODE_MARKER, str(home.path), grace_s=20)

    def purge(self, home: Home) -> None:
        """Nothing lies elsewhere."""

    def log(self, home: Home, *, lines: int) -> str:
        return tail(home.folder("path", self._series) / "node.log", lines)

    def follow(self, home: Home, node: Node, *, lines: int) -> list[str]:
        return tail_command(home.folder("path", self._series) / "node.log", node, lines)


def _server() -> Path:
    found = shutil.which("rabbitmq-server")
    if found is None:
        raise Unavailable("no rabbitmq-server is on the PATH")
    return _DEBIAN if Path(found).is_relative_to("/usr") and _DEBIAN.exists() else Path(found)


def _version(server: Path) -> tuple[int, ...]:
    """Ask the command beside the server; no node is started or spoken to."""
    control = server.with_name("rabbitmqctl")
    with tempfile.TemporaryDirectory() as home:
        try:
            done = subprocess.run(
                [str(control), "version"],
                # A home of its own: the command would write a cookie into the user's.
                env={**os.environ, "HOME": home, PROBE_MARKER: home},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=30,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise Unavailable(f"{control} does not say its version: {exc}") from exc
        finally:
            # It may leave Erlang's port mapper behind where none was running.
            stop(PROBE_MARKER, home, grace_s=2)
    match = re.search(r"(\d+)\.(\d+)\.(\d+)", done.stdout)
    if match is None:
        raise Unavailable(f"{control} does not say its version: {(done.stderr or '').strip()}")
    return tuple(map(int, match.groups()))
