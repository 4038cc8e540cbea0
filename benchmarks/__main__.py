"""Runs every benchmark, or those that are named: ``python -m benchmarks startup``."""

from __future__ import annotations

import sys
from importlib import import_module

QUESTIONS = ("startup", "publish", "consume", "calls", "batches", "topology")


def main() -> int:
    """Run the benchmarks in turn."""
    names = sys.argv[1:] or list(QUESTIONS)
    unknown = sorted(set(names) - set(QUESTIONS))
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are: {', '.join(QUESTIONS)}", file=sys.stderr)
        return 2
    for name in names:
        import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
