"""`worker run` for several workers: one process each, signals passed on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType

from broker.errors import EXIT_DONE, EXIT_FAILED


def run_all(commands: Sequence[Sequence[str]], environment: Mapping[str, str]) -> int:
    """Run commands side by side until they end; SIGTERM and SIGINT reach each as SIGTERM.

    When one ends by itself the others are told to stop too.

    Args:
        commands: arguments of ``rabbitry``, one process each.
        environment: added to each process's environment.

    Returns:
        0 where every process ended with 0, else 1.
    """
    processes: list[subprocess.Popen[bytes]] = []

    def stop(_signal: int, _frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.terminate()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for command in commands:
            # A session of its own: the terminal's Ctrl-C must not reach it twice.
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "rabbitry", *command],
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, **environment},
                    start_new_session=True,
                )
            )
        codes = []
        for process in processes:
            codes.append(process.wait())
            if codes[-1] != 0:
                stop(signal.SIGTERM, None)
        return EXIT_DONE if not any(codes) else EXIT_FAILED
    finally:
        stop(signal.SIGTERM, None)
        for process in processes:
            process.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)
