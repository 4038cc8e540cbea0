"""RabbitMQ from Debian's packages, in a root folder of its own for each series.

For Debian and Ubuntu as root. `fetch` makes the folder once by debootstrap; a node runs in it in
mount and process namespaces of its own, so that nothing of it stays when it ends.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from broker.errors import LocalNodeError
from broker.local import settings
from broker.local.process import FETCH_MARKER, NODE_MARKER, spawn, stop
from broker.local.state import NEWEST, Home, Node, Series, State, locked
from broker.local.way import Say, Unavailable

# Debian's releases by the RabbitMQ that they bring.
RELEASES: Mapping[Series, str] = {"4.0": "trixie", "4.3": "forky"}
# Debian 12's debootstrap does not know them all by name; this one fits every later release.
_SCRIPT = "sid"
# How many lines debootstrap prints for the whole fetch, for progress.
_LINES = 500
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# What is mounted or started in these ends with the first process, however it ends.
_NAMESPACES = (
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"),
)
# Mounted in the node's own namespace: the settings and data, devices, processes.
_RUN = """
mount --bind "$2" "$1/state"
mount --bind /dev "$1/dev"
mount -t proc proc "$1/proc"
exec chroot "$1" /usr/lib/rabbitmq/bin/rabbitmq-server
"""


class Debian:
    """Runs a node in the fetched root folder.

    Args:
        series: of RabbitMQ; None for the newest.
    """

    def __init__(self, series: Series | None = None) -> None:
        self._series: Series = series or NEWEST

    def prepare(self, home: Home, say: Say) -> None:
        """Fetch the root folder where it is missing."""
        _check()
        fetch(home, say, self._series)

    def start(self, home: Home, state: State, node: Node) -> Node:
        folder, root = home.folder("debian", self._series), root_of(home, self._series)
        settings.write(folder, state, node, cookie=secrets.token_hex(32), series=self._series)
        command = [*_NAMESPACES, "sh", "-ec", _RUN, "sh", str(root), str(folder)]
        environment = settings.environment(home, node, "/state")
        process = spawn(command, env=environment, log=folder / "node.log")
        return Node(name=node.name, ports=node.ports, process=process)

    def running(self, home: Home, node: Node) -> bool:
        return node.process is not None and node.process.alive()

    def stop(self, home: Home, node: Node | None) -> bool:
        return stop(NODE_MARKER, str(home.path), grace_s=20)

    def purge(self, home: Home) -> None:
        """Nothing lies elsewhere."""

    def log(self, home: Home, *, lines: int) -> str:
        return tail(home.folder("debian", self._series) / "node.log", lines)

    def follow(self, home: Home, node: Node, *, lines: int) -> list[str]:
        return tail_command(home.folder("debian", self._series) / "node.log", node, lines)


def root_of(home: Home, series: Series = NEWEST) -> Path:
    """Return where the root folder of a series is, fetched or not.

    Raises:
        Unavailable: no release of Debian brings it.
    """
    if series not in RELEASES:
        raise Unavailable(
            f"Debian has no packages of RabbitMQ {series}, only of {' and '.join(RELEASES)}"
        )
    return home.roots / f"rabbitmq-{series}-{RELEASES[series]}"


def fetch(home: Home, say: Say, series: Series = NEWEST) -> Path:
    """Fetch the root folder of a series once; return its path.

    It is made under another name and moved when it is whole, so that an interrupted fetch leaves
    nothing that counts as done; its remains are removed by the next one.

    Raises:
        Unavailable: this machine is not Debian or Ubuntu, the user is not root, or no release of
            Debian brings the series.
        LocalNodeError: the packages could not be fetched.
    """
    root = root_of(home, series)
    if root.exists():
        return root
    _check()
    with locked(home.roots / "fetch.lock", say, "fetching RabbitMQ"):
        if root.exists():
            return root
        partial = root.with_suffix(".partial")
        stop(FETCH_MARKER, str(partial), grace_s=2)
        _remove(partial)
        _install(say)
        say(f"fetching RabbitMQ {series} from Debian's packages into {root} (about 250 MB, once)")
        try:
            _debootstrap(partial, RELEASES[series], say)
            _finish(partial)
        except BaseException:
            _remove(partial)
            raise
        partial.rename(root)
    return root


def _finish(root: Path) -> None:
    (root / "state").mkdir()
    # Absent after debootstrap, and RabbitMQ waits for ever to resolve its own host.
    (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    # A third of the whole, and nobody installs anything else in there.
    for leftover in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / leftover, ignore_errors=True)


def tail(path: Path, lines: int) -> str:
    """Return the last lines of a file, "" where there is none."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def tail_command(path: Path, node: Node, lines: int) -> list[str]:
    """Return the command that shows what is appended to a log until the node ends."""
    ending = [f"--pid={node.process.pid}"] if node.process is not None else []
    return ["tail", "-n", str(lines), "-F", *ending, str(path)]


def _check() -> None:
    if os.geteuid() != 0:
        raise Unavailable("Debian's packages are for root only")
    try:
        release = Path("/etc/os-release").read_text()
    except OSError:
        release = ""
    fields = dict(line.split("=", 1) for line in release.splitlines() if "=" in line)
    names = f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".replace('"', "").split()
    if not {"debian", "ubuntu"} & set(names) or shutil.which("apt-get") is None:
        raise Unavailable("this is neither Debian nor Ubuntu")
    for tool in ("unshare", "mount", "chroot"):
        if shutil.which(tool) is None:
            raise Unavailable(f"the command {tool} is missing")
    allowed = subprocess.run(
        [*_NAMESPACES, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if allowed.returncode != 0:
        # As in most containers: root by name, without the right to mount.
        raise Unavailable(f"this root may not mount anything ({allowed.stderr.strip()})")


def _install(say: Say) -> None:
    missing = [] if shutil.which("debootstrap") else ["debootstrap"]
    if not _KEYRING.exists():
        missing.append("debian-archive-keyring")  # on Ubuntu
    if missing:
        say(f"installing {' and '.join(missing)}")
        _apt_get("update", "-q")
        _apt_get("install", "-y", "-q", "--no-install-recommends", *missing)


def _apt_get(*words: str) -> None:
    done = subprocess.run(
        ["apt-get", *words],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise LocalNodeError(
            f"apt-get {words[0]} failed: {' '.join(reason)};"
            f" run `apt-get {' '.join(words)}` by hand"
        )


def _mirror() -> str:
    """Return the mirror that the environment names or apt is configured with.

    "" where apt knows none of Debian, as on Ubuntu: debootstrap has one of its own.
    """
    named = os.environ.get("RABBITRY_DEBIAN_MIRROR")
    if named:
        return named
    form = "$(ORIGIN) $(RELEASE) $(SITE)"
    words = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
    for refreshed in (False, True):
        if refreshed:
            # Minimal images come without apt's lists, and without these nothing is printed.
            _apt_get("update", "-q")
        done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.stdout.strip():
            break
    return mirror_in(done.stdout)


def mirror_in(targets: str) -> str:
    """Return the first mirror that holds whole releases of Debian, or "".

    Args:
        targets: lines of ``apt-get indextargets``: origin, release, site.
    """
    for line in targets.splitlines():
        origin, _, rest = line.partition(" ")
        release, _, site = rest.partition(" ")
        if origin == "Debian" and "-security" not in release and site.startswith("http"):
            return site
    return ""


def _debootstrap(target: Path, release: str, say: Say) -> None:
    command = [
        *(*_NAMESPACES, "--mount-proc", "debootstrap", "--force-check-gpg"),
        *("--variant=minbase", "--include=rabbitmq-server"),
        *(release, str(target), _mirror(), _SCRIPT),
    ]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, FETCH_MARKER: str(target), "LANG": "C.UTF-8"},
        start_new_session=True,
    )
    last = ""
    assert process.stdout is not None
    try:
        with process.stdout:
            for done, line in enumerate(process.stdout):
                last = line.strip() or last
                say(last.removeprefix("I: "), min(0.99, done / _LINES))
        code = process.wait()
    finally:
        if process.poll() is None:
            stop(FETCH_MARKER, str(target), grace_s=2)
            process.wait()
    if code != 0:
        log = tail(target / "debootstrap" / "debootstrap.log", 3)
        raise LocalNodeError(
            f"debootstrap failed: {last}; {log or 'is the mirror of apt reachable?'}"
        )


def _remove(folder: Path) -> None:
    """Remove an interrupted fetch; never reach through what may still be mounted in it."""
    if not folder.exists():
        return
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted(mounts, reverse=True):
        if Path(mount).is_relative_to(folder):
            subprocess.run(["umount", "--lazy", mount], check=True)
    shutil.rmtree(folder)
