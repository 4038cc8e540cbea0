"""What the demo starts and ends: RabbitMQ, one daemon for each band; and how it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from broker.connection import Address, connect, translated
from broker.errors import EXIT_FAILED, RabbitryError

COMMAND_TIMEOUT_S = 600.0
READY_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 30.0
# A command that is interrupted may have a RabbitMQ to end.
COMMAND_GRACE_S = 30.0
# Short, since a daemon has nothing left to do: every job is answered, or nobody waits any more.
DAEMON_GRACE_S = 8.0
LOOK_EVERY_S = 0.1
LOG_LINES = 12


class DemoError(RabbitryError):
    """The demo cannot go on; says what to look at."""

    def __init__(self, text: str, *, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Interruption:
    """Ctrl-C and SIGTERM, noticed only where the demo looks.

    A signal that raised anywhere could fall between the start of a process and the line that
    remembers it; so the handler only takes a note, and every wait looks at it.
    """

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has come."""
        if self.requested:
            raise KeyboardInterrupt


def rabbitry(
    *arguments: str,
    environment: Mapping[str, str],
    interruption: Interruption | None = None,
    show: bool = False,
) -> str:
    """Run a command of rabbitry and return what it printed.

    Args:
        arguments: of the command line.
        environment: of the process.
        interruption: ends the command too; None where it must run to its end.
        show: lets its progress through to this terminal; else it is shown only if it fails.

    Raises:
        DemoError: it failed; with its own exit code.
        KeyboardInterrupt: a signal came; the command has ended.
    """
    # A session of its own, so that Ctrl-C on the terminal reaches it once and from here.
    process = subprocess.Popen(
        [sys.executable, "-m", "rabbitry", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if show else subprocess.PIPE,
        text=True,
        env=dict(environment),
        start_new_session=True,
    )
    deadline = time.monotonic() + COMMAND_TIMEOUT_S
    told = False
    while True:
        try:
            printed, complaint = process.communicate(timeout=LOOK_EVERY_S)
            break
        except subprocess.TimeoutExpired:
            late = time.monotonic() > deadline
            if not told and (late or (interruption is not None and interruption.requested)):
                # It has things of its own to end: it is told, and waited for.
                process.send_signal(signal.SIGINT)
                told, deadline = True, time.monotonic() + COMMAND_GRACE_S
            elif told and late:
                process.kill()
    if interruption is not None:
        interruption.check()
    if process.returncode != 0:
        detail = "" if show else ": " + " ".join((complaint or "").split()).removeprefix("Error: ")
        raise DemoError(
            f"`rabbitry {' '.join(arguments)}` ended with exit code {process.returncode}{detail}",
            exit_code=process.returncode if process.returncode > 0 else EXIT_FAILED,
        )
    return printed


@contextmanager
def private_rabbitmq(
    environment: Mapping[str, str], interruption: Interruption
) -> Iterator[tuple[str, bool]]:
    """Start the private RabbitMQ, and end it unless it was running before.

    Yields:
        Its URL with the password, and whether it was running before.
    """
    from broker.local import private_url

    running = private_url() is not None
    try:
        url = rabbitry(
            "broker", "up", environment=environment, interruption=interruption, show=True
        )
    except BaseException:
        if not running:
            with suppress(DemoError):  # what went wrong first is what is told
                rabbitry("broker", "down", environment=environment)
        raise
    try:
        yield url.strip().splitlines()[-1], running
    finally:
        if not running:
            rabbitry("broker", "down", environment=environment)


@dataclass(frozen=True, slots=True)
class Daemon:
    """One worker daemon.

    Attributes:
        name: of the worker in the topology.
        process: heads a session and a process group of its own.
        log: what it writes.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise DemoError if the daemon has ended, with the end of its log."""
        code = self.process.poll()
        if code is None:
            return
        with self.log.open(errors="replace") as lines:
            tail = "".join(f"\n    {line.rstrip()}" for line in lines.readlines()[-LOG_LINES:])
        raise DemoError(
            f"the daemon {self.name!r} ended with exit code {code}; the end of {self.log}:{tail}"
        )

    def stop(self, *, timeout_s: float) -> None:
        """End the daemon and its children: warmly first, by force after the time-out."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=timeout_s)
        with suppress(ProcessLookupError):  # also children that outlived it
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def daemons(
    names: Mapping[str, str],
    *,
    topology: Path,
    address: Address,
    logs: Path,
    environment: Mapping[str, str],
    interruption: Interruption,
) -> Iterator[list[Daemon]]:
    """Run one daemon for each worker; all of them consume when they are yielded.

    Args:
        names: worker: the queue that it consumes.
        topology: path of the topology file.
        address: where RabbitMQ is, with the virtual host.
        logs: folder of the log files.
        environment: of the processes.
        interruption: ends the waiting.

    Raises:
        DemoError: a daemon ended early, or consumes nothing in time.
    """
    started: list[Daemon] = []
    before = {queue: consumers(address, queue) for queue in names.values()}
    try:
        for name in names:
            log = logs / f"worker-{name}.log"
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "rabbitry",
                        "worker",
                        "run",
                        name,
                        "--topology",
                        str(topology),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(environment),
                    start_new_session=True,
                )
            started.append(Daemon(name, process, log))
        deadline = time.monotonic() + READY_TIMEOUT_S
        for daemon in started:
            queue = names[daemon.name]

            def ready(queue: str = queue) -> bool:
                return consumers(address, queue) > before[queue]

            _wait_for(ready, daemon, deadline, interruption)
        yield started
    finally:
        for daemon in started:
            with suppress(ProcessLookupError):
                daemon.process.terminate()
        deadline = time.monotonic() + DAEMON_GRACE_S
        for daemon in started:
            daemon.stop(timeout_s=max(0.0, deadline - time.monotonic()))


def _wait_for(
    ready: Callable[[], bool], daemon: Daemon, deadline: float, interruption: Interruption
) -> None:
    while not ready():
        interruption.check()
        daemon.check()
        if time.monotonic() > deadline:
            raise DemoError(
                f"the daemon {daemon.name!r} consumes nothing after {READY_TIMEOUT_S:g} s; see"
                f" {daemon.log}"
            )
        time.sleep(LOOK_EVERY_S)


def drain(address: Address, queues: Iterable[str], interruption: Interruption) -> int:
    """Wait until the queues are empty, so that what an earlier run left delays nothing of ours.

    Somebody else may be publishing to them: after a while it goes on all the same.

    Returns:
        How many messages were ready at first.
    """
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    first = left = messages(address, queues)
    while left and time.monotonic() < deadline:
        interruption.check()
        time.sleep(LOOK_EVERY_S)
        left = messages(address, queues)
    return first


def messages(address: Address, queues: Iterable[str]) -> int:
    """Ask RabbitMQ how many messages are ready in these queues together."""
    return sum(int(look_at(address, queue).message_count) for queue in queues)


def consumers(address: Address, queue: str) -> int:
    """Ask RabbitMQ how many consumers a queue has."""
    return int(look_at(address, queue).consumer_count)


def look_at(address: Address, queue: str) -> Any:
    """Declare a queue passively; returns py-amqp's answer: message_count, consumer_count."""
    connection = connect(address)
    try:
        with translated(address):
            found: Any = connection.default_channel.queue_declare(queue, passive=True)
        return found
    finally:
        connection.release()
