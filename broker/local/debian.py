"""RabbitMQ 4.3 from Debian's packages, in a root folder of its own.

For Debian and Ubuntu as root. `fetch` makes the folder once by debootstrap; a node runs in it in
mount and process namespaces of its own, so that nothing of it stays when it ends.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from pathlib import Path

from broker.errors import LocalNodeError
from broker.local import settings
from broker.local.process import FETCH_MARKER, NODE_MARKER, spawn, stop
from broker.local.state import Home, Node, State, locked
from broker.local.way import Say, Unavailable

# Debian's release that brings RabbitMQ 4.3; Debian 12's debootstrap does not know its name.
RELEASE, SCRIPT = "forky", "sid"
# What debootstrap says of a package, and how many lines the whole fetch has, for progress.
_LINES = 700

# Mounted in the node's own namespace: the settings and data, devices, processes.
_RUN = """
mount --bind "$2" "$1/state"
mount --bind /dev "$1/dev"
mount -t proc proc "$1/proc"
exec chroot "$1" /usr/lib/rabbitmq/bin/rabbitmq-server
"""


class Debian:
    """Runs a node in the fetched root folder."""

    def prepare(self, home: Home, say: Say) -> None:
        """Fetch the root folder where it is missing."""
        fetch(home, say)

    def start(self, home: Home, state: State, node: Node) -> Node:
        folder = home.folder("debian")
        settings.write(folder, state, node, cookie=secrets.token_hex(32))
        command = [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"),
            *("sh", "-ec", _RUN, "sh", str(root_of(home)), str(folder)),
        ]
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
        return tail(home.folder("debian") / "node.log", lines)


def root_of(home: Home) -> Path:
    """Return where the root folder is, fetched or not."""
    return home.roots / f"rabbitmq-4.3-{RELEASE}"


def fetch(home: Home, say: Say) -> Path:
    """Fetch the root folder once; return its path.

    It is made under another name and moved when it is whole, so that an interrupted fetch leaves
    nothing that counts as done; its remains are removed by the next one.

    Raises:
        Unavailable: this machine is not Debian or Ubuntu, or the user is not root.
        LocalNodeError: the packages could not be fetched.
    """
    root = root_of(home)
    if root.exists():
        return root
    _check()
    with locked(home.roots / "fetch.lock", say, "fetching RabbitMQ"):
        if root.exists():
            return root
        partial = root.with_suffix(".partial")
        stop(FETCH_MARKER, str(partial), grace_s=5)
        _remove(partial)
        _install("debootstrap", say)
        say(f"fetching RabbitMQ 4.3 from Debian's packages into {root} (about 400 MB, once)")
        _debootstrap(partial, say)
        (partial / "state").mkdir()
        # Absent after debootstrap, and RabbitMQ waits for ever to resolve its own host.
        (partial / "etc" / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        partial.rename(root)
    return root


def tail(path: Path, lines: int) -> str:
    """Return the last lines of a file, "" where there is none."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _check() -> None:
    if os.geteuid() != 0:
        raise Unavailable("Debian's packages can be fetched by root only")
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


def _install(package: str, say: Say) -> None:
    if shutil.which(package) is not None:
        return
    say(f"installing {package}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update", "-q"], ["install", "-y", "-q", package]):
        done = subprocess.run(
            ["apt-get", *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            reason = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise LocalNodeError(
                f"apt-get {words[0]} failed: {' '.join(reason)}; install {package} by hand"
            )


def _mirror() -> str:
    """Return the mirror that apt is configured with, or the one that the environment names."""
    named = os.environ.get("RABBITRY_DEBIAN_MIRROR")
    if named:
        return named
    words = ["apt-get", "indextargets", "--format", "$(SITE) $(ORIGIN)", "Created-By: Packages"]
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    sites = [site for site, _, origin in lines if origin == "Debian"]
    if not sites:
        raise Unavailable("apt knows no mirror of Debian; name one in RABBITRY_DEBIAN_MIRROR")
    return sites[0]


def _debootstrap(target: Path, say: Say) -> None:
    command = [
        *("debootstrap", "--variant=minbase", "--include=rabbitmq-server"),
        *(RELEASE, str(target), _mirror(), SCRIPT),
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
    try:
        assert process.stdout is not None
        for done, line in enumerate(process.stdout):
            last = line.strip() or last
            say(last.removeprefix("I: "), min(0.99, done / _LINES))
        code = process.wait()
    finally:
        if process.poll() is None:
            stop(FETCH_MARKER, str(target), grace_s=5)
            process.wait()
    if code != 0:
        log = tail(target / "debootstrap" / "debootstrap.log", 3)
        raise LocalNodeError(
            f"debootstrap failed: {last}; {log or 'is the mirror of apt reachable?'}"
        )


def _remove(folder: Path) -> None:
    """Remove an interrupted fetch; debootstrap may have left /proc mounted in it."""
    if not folder.exists():
        return
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted(mounts, reverse=True):
        if Path(mount).is_relative_to(folder):
            subprocess.run(["umount", "--lazy", mount], check=True)
    shutil.rmtree(folder)
