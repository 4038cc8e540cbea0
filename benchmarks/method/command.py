"""The command: which questions, how large, into which file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.method import results
from benchmarks.method.bench import Bench
from benchmarks.method.broker import running
from broker.errors import RabbitryError

# A file each, beside this package. It has `ask(bench)`, which measures; ASKS, the question in a
# sentence; and MEANING, what the page says of the figures. It must be importable without peers.
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
    """Ask the questions; return the exit code."""
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
        "--results",
        type=Path,
        help="the file that records are appended to; benchmarks/results/latest.jsonl by default",
    )
    options = parser.parse_args(arguments)
    here = Path(__file__).resolve().parents[1]
    known = [name for name in (*QUESTIONS, "calls") if (here / f"{name}.py").exists()]
    unknown = [name for name in options.questions if name not in known]
    if unknown:
        parser.error(f"there is no question {unknown[0]!r}; there are: {', '.join(known)}")
    file = options.results or results.LATEST
    try:
        with running() as rabbitmq:
            bench = Bench(rabbitmq=rabbitmq, results=file, small=options.small)
            for name in options.questions or known:
                module = import_module(f"benchmarks.{name}")
                # Those that are not yet of this method bring their own.
                module.ask(bench) if hasattr(module, "ask") else module.main()
    except RabbitryError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def alone(file: str) -> int:
    """Ask the one question of a file that is run by itself: ``alone(__file__)``."""
    return run([Path(file).stem, *sys.argv[1:]])
