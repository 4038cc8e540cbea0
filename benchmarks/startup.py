"""How long does a command take before it does anything? Beside a bare Python."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.rounds import measure, report


def main() -> None:
    """Measure and report, in milliseconds."""
    module = (sys.executable, "-m", "rabbitry")
    contenders = {
        "rabbitry --help": _timed(*module, "--help"),
        "python -c pass": _timed(sys.executable, "-c", "pass"),
        "rabbitry jobs list": _timed(*module, "jobs", "list"),
        "celery --help": _timed(sys.executable, "-m", "celery", "--help"),
    }
    figures = measure(contenders, rounds=9)
    report("start of a command", figures, unit="ms", first="rabbitry --help", context={})


def _timed(*command: str) -> Callable[[], float]:
    def run() -> float:
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return (time.perf_counter() - started) * 1000

    return run


if __name__ == "__main__":
    main()
