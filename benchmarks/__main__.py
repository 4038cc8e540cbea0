"""Runs every benchmark, or those that are named: ``python -m benchmarks startup``."""

from __future__ import annotations

import sys

from benchmarks.method.command import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
