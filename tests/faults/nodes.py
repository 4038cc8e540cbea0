"""A RabbitMQ of the tests' own that may be hurt: killed, stopped, paused, told to raise an alarm.

Debian's packages come first, then a server on the PATH, since their processes take signals; else a
container takes the engine's own commands. Whatever is done to it, it keeps its ports and its data.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from broker import local
from broker.connection import Address
from broker.errors import LocalNodeError
from broker.local.debian import root_of
from broker.local.process import NODE_MARKER, marked
from broker.local.state import Home, State
from tests.rabbitmq import TELLS_MS, let_tell_soon
from tests.waiting import until

WAYS = ("debian", "path", "engine")
_BEAM = "beam.smp"
# Any node uses more than this; and what a node comes with (deploy/rabbitmq/rabbitmq.conf).
_NO_MEMORY, _USUAL_MEMORY = "0.0000001", "0.6"
_CTL_S = 60


class NoNode(Exception):
    """No RabbitMQ that may be hurt can be started here."""


class Hurt:
    """A private RabbitMQ, started at once.

    Args:
        home: where it lives.

    Raises:
        NoNode: none can be started here.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self._tells_soon = False
        let_tell_soon(home)
        reasons = []
        for way in WAYS:
            try:
                self._state: State = local.up(home, way=way)
            except LocalNodeError as exc:
                reasons.append(str(exc))
            else:
                return
        raise NoNode("; ".join(reasons))

    @property
    def address(self) -> Address:
        """Its address; the same before and after every fault."""
        return Address.parse(self._state.url, management_url=self._state.management_url)

    @property
    def way(self) -> str:
        """How it runs."""
        return self._state.way

    def start(self) -> None:
        """Start it where it does not run, and wait until it is ready."""
        self._state = local.up(self.home, way=self._state.way)
        self._tells_soon = False

    def stop(self) -> None:
        """Stop it as an administrator would."""
        local.down(self.home)

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        (node,) = self._state.nodes
        if node.container is not None:
            self._engine("kill", node.container)
            return
        for pid in self._beams():
            os.kill(pid, signal.SIGKILL)

    def pause(self) -> None:
        """Let it do nothing and answer nobody; its connections stay open."""
        self._hold("pause", signal.SIGSTOP)

    def go_on(self) -> None:
        """End a pause."""
        self._hold("unpause", signal.SIGCONT)

    def raise_alarm(self) -> None:
        """Let it believe that its memory is used up: it reads from no publisher any more."""
        self._ctl("set_vm_memory_high_watermark", _NO_MEMORY)

    def lift_alarm(self) -> None:
        """End the alarm."""
        self._ctl("set_vm_memory_high_watermark", _USUAL_MEMORY)

    def listen(self, host: str) -> None:
        """Let it listen on one more address of this machine, until it is restarted."""
        start = f'rabbit_networking:start_tcp_listener({{"{host}", {self.address.port}}}, 2)'
        there = "{error, {could_not_start_listener, _, _, {already_started, _}}}"
        self._ctl("eval", f"ok = case {start} of {there} -> ok; Other -> Other end.")

    def beat(self, heartbeat_s: int) -> None:
        """Let new connections have heartbeats this far apart at most, until it is restarted."""
        self._ctl("eval", f"ok = application:set_env(rabbit, heartbeat, {heartbeat_s}).")

    def tell_soon(self) -> None:
        """Let management know of new queues and connections soon, until it is restarted."""
        (node,) = self._state.nodes
        # Others do so from their start on.
        if node.container is not None and not self._tells_soon:
            names = ("collect_statistics_interval", "quorum_tick_interval")
            calls = [f"application:set_env(rabbit, {name}, {TELLS_MS})" for name in names]
            self._ctl("eval", f"{', '.join(calls)}.")
            self._tells_soon = True

    def purge(self) -> None:
        """End it and remove what it leaves."""
        local.down(self.home, purge=True)

    def _beams(self) -> list[int]:
        return [
            pid
            for pid in marked(NODE_MARKER, str(self.home.path))
            if Path(f"/proc/{pid}/comm").read_text().strip() == _BEAM
        ]

    def _hold(self, command: str, number: signal.Signals) -> None:
        (node,) = self._state.nodes
        if node.container is not None:
            self._engine(command, node.container)
            return
        for pid in self._beams():
            os.kill(pid, number)
            if number is signal.SIGSTOP:
                # Its threads stop one after the other, and may answer until then.
                until(lambda pid=pid: _is_stopped(pid), timeout_s=10, what="all threads to stop")

    def _ctl(self, *words: str) -> None:
        (node,) = self._state.nodes
        if node.container is not None:
            self._engine("exec", node.container, "rabbitmqctl", *words)
            return
        (beam,) = self._beams()
        # As the node itself sees the machine: its folders, its port mapper, its cookie.
        environment = dict(
            entry.split("=", 1)
            for entry in Path(f"/proc/{beam}/environ").read_text().split("\0")
            if "=" in entry
        )
        command = ["rabbitmqctl", "--node", node.name, *words]
        if self._state.way == "debian":
            inside = ("nsenter", "--target", str(beam), "--mount", "--pid")
            inside += ("chroot", str(root_of(self.home)), "/usr/lib/rabbitmq/bin/rabbitmqctl")
            command = [*inside, *command[1:]]
        kept = ("PATH", "LANG", "HOME", "RABBITMQ_NODENAME", "ERL_EPMD_PORT")
        _run(command, env={name: environment[name] for name in kept})

    def _engine(self, *words: str) -> None:
        name = shutil.which("docker") or shutil.which("podman")
        assert name is not None
        _run([name, *words], env=dict(os.environ))


def _is_stopped(pid: int) -> bool:
    """Say whether every thread of a process is stopped (proc(5), the state in stat)."""
    states = {
        path.read_text().rpartition(")")[2].split()[0]
        for path in Path(f"/proc/{pid}/task").glob("*/stat")
    }
    return states == {"T"}


def _run(command: list[str], *, env: dict[str, str]) -> None:
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_CTL_S
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
