"""A Redis of the tests' own: the one on the PATH, or Debian's packages unpacked into a cache."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from broker.local.state import Home
from tests.waiting import until

PACKAGE = "redis-server"


class NoRedis(Exception):
    """No Redis for the tests; the text says what was tried."""


@dataclass
class Redis:
    """A Redis that listens on loopback only.

    Attributes:
        port: where.
        password: of its only user.
    """

    port: int
    password: str
    command: list[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address, password included."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def stop(self) -> None:
        """End it; what it holds is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def start(self) -> None:
        """Start it again, empty, at the same port."""
        self.process = subprocess.Popen(
            self.command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self._answers, timeout_s=30, what="Redis to answer")

    def _answers(self) -> bool:
        import redis

        assert self.process is not None
        assert self.process.poll() is None, f"{self.command} ended: {self.process.returncode}"
        with contextlib.closing(redis.Redis.from_url(self.url)) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False


@contextlib.contextmanager
def running() -> Iterator[Redis]:
    """Start a Redis and end it; it keeps nothing on the disk.

    Raises:
        NoRedis: there is none, and Debian's packages cannot be fetched.
    """
    binary, environment = _binary()
    folder = Path(tempfile.mkdtemp(prefix="rabbitry-redis-"))
    port, password = _free_port(), secrets.token_urlsafe(12)
    # Not as an argument, which others could read.
    (folder / "redis.conf").write_text(
        f'bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave ""\nappendonly no\n'
        f"dir {folder}\n"
    )
    command = [str(binary), str(folder / "redis.conf")]
    server = Redis(port, password, command, environment)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _binary() -> tuple[Path, dict[str, str]]:
    """Return the server and the environment that it finds its libraries in."""
    installed = shutil.which("redis-server")
    if installed is not None:
        return Path(installed), dict(os.environ)
    root = _fetched()
    libraries = {str(path.parent) for path in root.rglob("lib*.so*")}
    searched = os.pathsep.join(sorted(libraries))
    return root / "usr" / "bin" / "redis-server", {**os.environ, "LD_LIBRARY_PATH": searched}


def _fetched() -> Path:
    """Unpack Debian's packages once, those of libraries that this machine lacks with them."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise NoRedis("no redis-server on the PATH, and this is no Debian to fetch it from")
    roots = Home.default().roots
    roots.mkdir(parents=True, exist_ok=True)
    with (roots / "redis.lock").open("w") as lock:
        # Several processes of one run ask at the same time.
        fcntl.flock(lock, fcntl.LOCK_EX)
        root = roots / f"redis-{_release()}"
        if not root.exists():
            partial = root.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            _unpack(partial)
            partial.rename(root)
    return root


def _release() -> str:
    fields = dict(
        line.split("=", 1)
        for line in Path("/etc/os-release").read_text().splitlines()
        if "=" in line
    )
    return f"{fields.get('ID', '')}-{fields.get('VERSION_ID', '')}".replace('"', "")


def _unpack(target: Path) -> None:
    # What would be installed: names differ from release to release.
    simulation = ["install", "--simulate", "--no-install-recommends", PACKAGE]
    try:
        listed = _apt_get(*simulation)
    except NoRedis:
        # Minimal images come without apt's lists.
        _apt_get("update", "-q")
        listed = _apt_get(*simulation)
    lines = [line.split() for line in listed.splitlines()]
    packages = [words[1] for words in lines if words[:1] == ["Inst"]]
    with tempfile.TemporaryDirectory(prefix="rabbitry-redis-") as folder:
        try:
            _apt_get("download", *packages, cwd=folder)
        except NoRedis:
            # Of older lists, whose packages the mirror no longer has.
            _apt_get("update", "-q")
            _apt_get("download", *packages, cwd=folder)
        for package in sorted(Path(folder).glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", package, target], check=True)


def _apt_get(*words: str, cwd: str | None = None) -> str:
    done = subprocess.run(
        ["apt-get", *words], cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode != 0:
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise NoRedis(f"no redis-server on the PATH, and apt-get {words[0]}: {' '.join(reason)}")
    return done.stdout
