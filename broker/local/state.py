"""What is remembered of the private RabbitMQ: folders, ports, password, processes.

Everything lies under one folder, the home: ``$RABBITRY_HOME``, else ``rabbitry`` in the
user's cache folder. This module is imported to find the address of the node, so it
imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import quote

from broker.errors import LocalNodeError
from broker.local.process import Process

Phase = Literal["stopped", "starting", "running"]
WayName = Literal["engine", "path", "debian"]
WAYS: tuple[WayName, ...] = get_args(WayName)
Series = Literal["4.0", "4.1", "4.2", "4.3"]
SERIES: tuple[Series, ...] = get_args(Series)
NEWEST = SERIES[-1]

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Home:
    """The folders of one private RabbitMQ.

    Attributes:
        path: the home itself.
        roots: where RabbitMQ's root folders are fetched to; several homes may share them.
    """

    path: Path
    roots: Path

    @classmethod
    def default(cls, environ: Mapping[str, str] = os.environ) -> Home:
        """Return the home that the environment names.

        RABBITRY_HOME, else ``rabbitry`` below XDG_CACHE_HOME or ``~/.cache``; RABBITRY_ROOTS
        sets the folder of the roots apart.
        """
        named = environ.get("RABBITRY_HOME")
        cache = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        # Absolute, since it marks the processes: `up` and `down` may run in different folders.
        path = Path(named or Path(cache) / "rabbitry").expanduser().absolute()
        roots = Path(environ.get("RABBITRY_ROOTS") or path / "roots").expanduser().absolute()
        return cls(path, roots)

    @property
    def node(self) -> Path:
        """What `down --purge` removes: state, settings, data and log."""
        return self.path / "node"

    @property
    def state_file(self) -> Path:
        return self.node / "state.json"

    def folder(self, way: WayName, series: Series | None = None) -> Path:
        """Settings, data and log of the node as one way runs it.

        Data of one series is no other's: an older RabbitMQ cannot read it, and a newer one
        changes it for good.
        """
        return self.node / (way if series in (None, NEWEST) else f"{way}-{series}")

    @contextlib.contextmanager
    def locked(self, waiting: Callable[[str], None]) -> Iterator[None]:
        """Let one command at a time change this node.

        Args:
            waiting: told in a sentence when another command is being waited for.
        """
        with locked(self.path / "node.lock", waiting, "the private RabbitMQ"):
            yield


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[str], None], what: str) -> Iterator[None]:
    """Hold a lock file; the kernel lets it go when the process ends, however it ends."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting(f"another command is at work on {what}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The ports of a node, all on loopback; management is AMQP's plus 10,000."""

    amqp: int
    management: int
    prometheus: int
    distribution: int
    epmd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of the private RabbitMQ.

    Attributes:
        name: Erlang's name of it, such as ``rabbit1@localhost``.
        process: the process to watch, or None where an engine runs it, or nothing runs.
        container: name of its container, or None.
    """

    name: str
    ports: Ports
    process: Process | None = None
    container: str | None = None

    def describe(self) -> dict[str, Any]:
        """Return the node as `rabbitry broker status --json` shows it."""
        where: dict[str, Any] = {"container": self.container}
        if self.process is not None:
            where = {"pid": self.process.pid}
        ports = {key: getattr(self.ports, key) for key in ("amqp", "management", "prometheus")}
        return {"name": self.name, **where, "ports": ports}


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The private RabbitMQ; `stopped` keeps the ports and the password of its data.

    Attributes:
        series: which was asked for; None for the newest that the way offers.
        version: RabbitMQ's own; None where it never was ready.
    """

    phase: Phase
    way: WayName
    user: str
    password: str
    nodes: tuple[Node, ...]
    series: Series | None = None
    version: str | None = None

    def is_of(self, series: Series | None) -> bool:
        """Say whether its RabbitMQ is of a series; any is, where None is asked for."""
        return series is None or (self.version or "").startswith(f"{series}.")

    @property
    def url(self) -> str:
        """The AMQP URL, password included: a throw-away one, of a node on loopback."""
        port = self.nodes[0].ports.amqp
        return f"amqp://{quote(self.user, safe='')}:{quote(self.password, safe='')}@{HOST}:{port}/"

    @property
    def management_url(self) -> str:
        return f"http://{HOST}:{self.nodes[0].ports.management}"


def save(home: Home, state: State) -> None:
    """Write the state at once and for the owner only."""
    private_folder(home.node)
    temporary = home.state_file.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(state), file, indent=2)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(home.state_file)


def load(home: Home) -> State | None:
    """Read the state, or return None where there is none.

    Raises:
        LocalNodeError: the file cannot be read as a state.
    """
    try:
        return _decode(json.loads(home.state_file.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, IndexError) as exc:
        raise LocalNodeError(
            f"the state of the private RabbitMQ in {home.state_file} cannot be read"
            f" ({type(exc).__name__}: {exc}); `rabbitry broker down --purge` clears it away"
        ) from exc


def private_url(home: Home | None = None) -> str | None:
    """Return the URL of the private RabbitMQ, or None where none runs.

    Reads the state and looks at the process; nothing is connected to.
    """
    try:
        state = load(home or Home.default())
    except LocalNodeError:
        return None
    if state is None or state.phase != "running":
        return None
    processes = [node.process for node in state.nodes if node.process is not None]
    return state.url if all(process.alive() for process in processes) else None


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner can open."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def _decode(raw: dict[str, Any]) -> State:
    if raw["phase"] not in get_args(Phase) or raw["way"] not in WAYS:
        raise ValueError("unknown phase or way")
    # A state of before there was a choice has none.
    series = raw.get("series")
    if series is not None and series not in SERIES:
        raise ValueError("unknown series")
    nodes = tuple(
        Node(
            name=node["name"],
            ports=Ports(**node["ports"]),
            process=Process(**node["process"]) if node["process"] else None,
            container=node["container"],
        )
        for node in raw["nodes"]
    )
    if not nodes:
        raise ValueError("no nodes")
    return State(
        phase=raw["phase"],
        way=raw["way"],
        user=raw["user"],
        password=raw["password"],
        series=series,
        version=raw["version"],
        nodes=nodes,
    )
