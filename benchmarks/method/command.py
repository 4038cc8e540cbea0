"""The command: which questions, how large, into which file."""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType

from benchmarks.method import guard, results
from benchmarks.method.bars import BARS
from benchmarks.method.bench import Bench, console
from benchmarks.method.broker import running
from broker.errors import RabbitryError

# A file each, beside this package. It has `ask(bench)`, which measures; ASKS, the question in a
# sentence; and MEANING, what the page says of the figures. It can be imported without any peer.
QUESTIONS = (
    "publish",
    "consume",
    "batches",
    "call",
    "arrays",
    "priority",
    "topology",
    "startup",
    "scale",
)


def run(arguments: Sequence[str]) -> int:
    """Ask the questions; return the exit code: 1 where one failed, or a ratio has fallen."""
    options = _options(arguments)
    file = options.results or (results.LATEST_SMALL if options.small else results.LATEST)
    before = results.read(results.SMALL) if options.check and results.SMALL.exists() else {}
    signal.signal(signal.SIGTERM, _end)
    began = time.monotonic()
    failed = []
    try:
        with running() as rabbitmq:
            bench = Bench(rabbitmq=rabbitmq, results=file, small=options.small)
            for name in options.questions:
                if options.within and time.monotonic() - began > options.within:
                    sys.stderr.write(f"{name}: no time is left\n")
                elif not _ask(name, bench):
                    failed.append(name)
    except RabbitryError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    findings = []
    if options.check:
        asked = set(options.questions)
        bars = [bar for bar in BARS if bar.question in asked]
        findings = guard.compare(bench.records, before, bars=bars)
        guard.show(findings, console())
    if failed:
        sys.stderr.write(f"failed: {', '.join(failed)}\n")
    return int(bool(failed) or any(each.fallen for each in findings))


def alone(file: str) -> int:
    """Ask the one question of a file that is run by itself: ``alone(__file__)``."""
    return run([Path(file).stem, *sys.argv[1:]])


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure this project beside its peers, in turn, on one RabbitMQ.",
        epilog="Examples: python -m benchmarks;  python -m benchmarks publish consume --small",
    )
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=", ".join(QUESTIONS))
    parser.add_argument(
        "--small", action="store_true", help="few rounds of little work, in less than 3 minutes"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare the ratios with those of before: exit code 1 where one has fallen;"
        " implies --small, and only what has a bar is asked",
    )
    parser.add_argument(
        "--within", type=float, metavar="SECONDS", help="begin no further question after these"
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        help="that records are appended to; benchmarks/results/latest.jsonl by default, or"
        " latest-small.jsonl",
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.questions if name not in QUESTIONS]
    if unknown:
        parser.error(f"there is no question {unknown[0]!r}; there are: {', '.join(QUESTIONS)}")
    barred = {bar.question for bar in BARS}
    options.questions = options.questions or [
        name for name in QUESTIONS if name in barred or not options.check
    ]
    options.small = options.small or options.check
    return options


def _ask(name: str, bench: Bench) -> bool:
    """Ask one question; where it fails, say so, so that the others are asked."""
    try:
        import_module(f"benchmarks.{name}").ask(bench)
    except RabbitryError as exc:
        sys.stderr.write(f"{name}: {exc}\n")
    except SystemExit as exc:
        if not isinstance(exc.code, str):
            raise  # asked to end
        sys.stderr.write(f"{name}: {exc.code}\n")
    except Exception:  # noqa: BLE001  # a peer's: the others' questions are still worth asking
        traceback.print_exc()
    else:
        return True
    return False


def _end(number: int, _frame: FrameType | None) -> None:
    """End in order on SIGTERM: with the workers, the virtual host, and a RabbitMQ of our own."""
    sys.exit(128 + number)
