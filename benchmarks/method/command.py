"""The command: which questions, how large, into which file."""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.method import guard, results
from benchmarks.method.bars import BARS
from benchmarks.method.bench import Bench, console
from benchmarks.method.broker import running
from benchmarks.method.results import Record
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


class _Ended(BaseException):
    """The time is over, or somebody asked for the end: an order, not a failure of a question."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def run(arguments: Sequence[str]) -> int:
    """Ask the questions; return the exit code: 1 where one failed, or a ratio has fallen."""
    options = _options(arguments)
    before = results.read(results.SMALL) if options.check and results.SMALL.exists() else {}
    records: list[Record] = []
    code = 0
    # Either way what was started is ended: workers, the virtual host, a RabbitMQ of our own.
    signal.signal(signal.SIGTERM, lambda *_: _end(128 + signal.SIGTERM))
    signal.signal(signal.SIGALRM, lambda *_: _end(0))
    signal.setitimer(signal.ITIMER_REAL, options.within or 0)
    try:
        with running() as rabbitmq:
            file = options.results or (results.LATEST_SMALL if options.small else results.LATEST)
            bench = Bench(rabbitmq=rabbitmq, results=file, small=options.small, records=records)
            for name in options.questions:
                code = max(code, 0 if _ask(name, bench) else 1)
    except RabbitryError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    except _Ended as exc:
        sys.stderr.write("ended before all was measured\n")
        code = max(code, exc.code)
    signal.setitimer(signal.ITIMER_REAL, 0)
    if options.check:
        bars = [bar for bar in BARS if bar.question in options.questions]
        findings = guard.compare(records, before, bars=bars)
        guard.show(findings, console())
        code = max(code, int(any(each.fallen for each in findings)))
    return code


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
        "--within", type=float, metavar="SECONDS", help="end after these, in order, measured or not"
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
        sys.stderr.write(f"{name}: {exc.code}\n")
    except Exception:  # noqa: BLE001  # a peer's: the others' questions are still worth asking
        traceback.print_exc()
    else:
        return True
    return False


def _end(code: int) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    raise _Ended(code)
