"""One `rabbitry` command as a process that does not outlive the one that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from consumers.ending import native
from consumers.notify import without_systemd

# Names the descriptor that ends with the process that holds its other end.
LIFELINE = "RABBITRY_LIFELINE_FD"


class Lifeline:
    """A pipe that nobody writes to: whoever reads its end knows that this process is gone.

    However it went, kill -9 included, and on any Unix.
    """

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()

    def close(self) -> None:
        """Let go of both ends."""
        os.close(self.reader)
        os.close(self._writer)


class Child:
    """A command that runs, or ran.

    Args:
        command: arguments of ``rabbitry``.
        environment: added to this process's, without what systemd has said to this one.
        lifeline: of this process.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], lifeline: Lifeline
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rabbitry", *command],
            stdin=subprocess.DEVNULL,
            env={
                **without_systemd(os.environ),
                **environment,
                LIFELINE: str(lifeline.reader),
            },
            pass_fds=[lifeline.reader],
            # A session of its own: the terminal's Ctrl-C must not reach it twice.
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, as a shell has it; None while it runs."""
        code = self._process.poll()
        return code if code is None or code >= 0 else 128 - code

    def tell(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal, if it still runs."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self, timeout_s: float) -> None:
        """Wait for its end; end it, and all that it started, where it lasts too long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, timeout_s))
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def end_with_parent() -> None:
    """Stop this process in order when the one that started it is gone, if that left a lifeline."""
    # Children of this process are none of that one's.
    descriptor = os.environ.pop(LIFELINE, "")
    if not descriptor.isdigit():
        return
    start, _ = native()
    start(_watch, (int(descriptor), os.getpid()))


def _watch(descriptor: int, pid: int) -> None:
    with contextlib.suppress(OSError):
        os.read(descriptor, 1)
        os.kill(pid, signal.SIGTERM)
