"""A container engine: Docker or Podman, by its command line."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from broker.errors import LocalNodeError
from broker.local import settings
from broker.local.debian import tail
from broker.local.state import HOST, NEWEST, Home, Node, Series, State, private_folder
from broker.local.way import Say, Unavailable

LABEL = "rabbitry.home"
_ANSWER_S, _PULL_S, _RUN_S = 10, 600, 60
# Within the container; what the ports of the host lead to.
_AMQP, _MANAGEMENT, _PROMETHEUS = 5672, 15672, 15692


class _NoImage(Unavailable):
    """An engine answers, but the image is not there yet."""


class Engine:
    """Runs a node as a container, published on loopback only.

    Args:
        series: of RabbitMQ; None for the newest.
    """

    def __init__(self, series: Series | None = None) -> None:
        self._command: str | None = None
        self._series: Series = series or NEWEST
        self._image = self._official

    def prepare(self, home: Home, say: Say) -> None:
        """Find an engine that answers, and an image."""
        try:
            self.find_local()
            return
        except _NoImage:
            wanted = os.environ.get("RABBITRY_IMAGE") or self._official
        say(f"pulling the image {wanted}")
        done = self._run("pull", "--quiet", wanted, timeout_s=_PULL_S)
        if done.returncode != 0:
            raise Unavailable(f"no registry gives the image {wanted}: {_last(done.stderr)}")
        self._image = wanted

    def find_local(self) -> None:
        """Find an engine that answers and has an image; pull nothing.

        Raises:
            Unavailable: there is none, or it has no image.
        """
        named = os.environ.get("RABBITRY_IMAGE")
        self._find()
        images = [named] if named else images_of(self._series)
        for image in images:
            if self._run("image", "inspect", image).returncode == 0:
                self._image = image
                return
        raise _NoImage(f"the engine has no image {' or '.join(images)}")

    def start(self, home: Home, state: State, node: Node) -> Node:
        folder = private_folder(home.folder("engine", self._series))
        everywhere = "0.0.0.0"  # noqa: S104  (of the container; the host publishes on loopback)
        text = settings.configuration(
            state, host=everywhere, amqp=_AMQP, management=_MANAGEMENT, prometheus=_PROMETHEUS
        )
        plugins = settings.plugins(self._series)
        for name, content in (("rabbitmq.conf", text), ("enabled_plugins", plugins)):
            (folder / name).write_text(content)
            # The folder is closed to others; the file is read by the image's own user.
            (folder / name).chmod(0o644)
        ports = {
            node.ports.amqp: _AMQP,
            node.ports.management: _MANAGEMENT,
            node.ports.prometheus: _PROMETHEUS,
        }
        self._find()
        done = self._run(
            *("run", "--detach", "--name", name_of(home), "--label", f"{LABEL}={home.path}"),
            *("--hostname", "localhost"),
            *("--volume", f"{self._volume(home)}:/var/lib/rabbitmq"),
            *("--env", "RABBITMQ_NODENAME=" + node.name),
            *("--volume", f"{folder / 'rabbitmq.conf'}:/etc/rabbitmq/rabbitmq.conf:ro"),
            *("--volume", f"{folder / 'enabled_plugins'}:/etc/rabbitmq/enabled_plugins:ro"),
            *(
                word
                for port, inside in ports.items()
                for word in ("--publish", f"{HOST}:{port}:{inside}")
            ),
            self._image,
            timeout_s=_RUN_S,
        )
        if done.returncode != 0:
            raise LocalNodeError(f"{self._command} does not start RabbitMQ: {_last(done.stderr)}")
        return Node(name=node.name, ports=node.ports, container=name_of(home))

    def running(self, home: Home, node: Node) -> bool:
        return self._ours(home) == "true"

    def stop(self, home: Home, node: Node | None) -> bool:
        if self._ours(home) is None:
            return False
        self._run("stop", "-t", "20", name_of(home), timeout_s=_RUN_S)
        if home.folder("engine", self._series).exists():
            # The engine forgets the log with the container.
            self._log_file(home).write_text(self.log(home, lines=10_000))
        done = self._run("rm", "--force", name_of(home), timeout_s=_RUN_S)
        if done.returncode != 0:
            raise LocalNodeError(
                f"{self._command} does not remove the container {name_of(home)}:"
                f" {_last(done.stderr)}; remove it by hand"
            )
        return True

    def purge(self, home: Home) -> None:
        """Remove the volume that holds the data."""
        try:
            self._find()
        except Unavailable as exc:
            raise LocalNodeError(f"the data lies with a container engine, but {exc}") from exc
        volume = self._volume(home)
        done = self._run("volume", "rm", "--force", volume, timeout_s=_RUN_S)
        if done.returncode != 0:
            raise LocalNodeError(
                f"{self._command} does not remove the volume {volume}: {_last(done.stderr)}"
            )

    def log(self, home: Home, *, lines: int) -> str:
        if self._ours(home) is None:
            return tail(self._log_file(home), lines)
        done = self._run("logs", "--tail", str(lines), name_of(home))
        return done.stdout + done.stderr

    def follow(self, home: Home, node: Node, *, lines: int) -> list[str]:
        if self._ours(home) is None:
            return ["tail", "-n", str(lines), str(self._log_file(home))]
        assert self._command is not None
        return [self._command, "logs", "--tail", str(lines), "--follow", name_of(home)]

    def _log_file(self, home: Home) -> Path:
        return home.folder("engine", self._series) / "node.log"

    @property
    def _official(self) -> str:
        return images_of(self._series)[-1]

    def _volume(self, home: Home) -> str:
        return name_of(home) + ("" if self._series == NEWEST else f"-{self._series}")

    def _ours(self, home: Home) -> str | None:
        """Return "true" or "false" as our container runs, None where there is none of ours."""
        try:
            self._find()
        except Unavailable:
            return None
        form = f'{{{{index .Config.Labels "{LABEL}"}}}} {{{{.State.Running}}}}'
        done = self._run("container", "inspect", "--format", form, name_of(home))
        label, _, running = done.stdout.strip().rpartition(" ")
        return running if done.returncode == 0 and label == str(home.path) else None

    def _find(self) -> None:
        if self._command is not None:
            return
        reasons = []
        for name in ("docker", "podman"):
            if shutil.which(name) is None:
                continue
            self._command = name
            host = os.environ.get("DOCKER_HOST", "")
            if name == "docker" and host and not host.startswith("unix://"):
                reasons.append(f"docker's engine is elsewhere ({host})")
            else:
                done = self._run("info", "--format", "{{.ID}}" if name == "docker" else "json")
                if done.returncode == 0 and done.stdout.strip():
                    return
                reasons.append(f"{name}: {_last(done.stderr) or 'no engine answers'}")
            self._command = None
        raise Unavailable("; ".join(reasons) or "neither docker nor podman is installed")

    def _run(self, *words: str, timeout_s: float = _ANSWER_S) -> subprocess.CompletedProcess[str]:
        assert self._command is not None
        command = [self._command, *words]
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            return subprocess.CompletedProcess(command, 125, "", str(exc))


def images_of(series: Series) -> list[str]:
    """Return the images of a series: what deploy/rabbitmq makes, then the official one."""
    return [f"rabbitry/rabbitmq:{series}", f"rabbitmq:{series}-management"]


def name_of(home: Home) -> str:
    """Return the name of a home's container, and that of its volume begins so."""
    digest = hashlib.sha256(str(Path(home.path)).encode()).hexdigest()[:10]
    return f"rabbitry-{digest}"


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
