"""Does an order: ``python -m benchmarks.publishers NAME``."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

from benchmarks.publishers import blocking, gathered, own, pipelined
from benchmarks.publishers.order import Order, Taken


def main() -> None:
    """Run the publisher that is named with the order of standard input."""
    name = sys.argv[1]
    room = next(each for each in (own, blocking, gathered, pipelined) if hasattr(each, name))
    meter = getattr(room, name)(Order(**json.load(sys.stdin)))
    print(json.dumps(asdict(Taken.by(meter, os.getpid()))))


if __name__ == "__main__":
    main()
