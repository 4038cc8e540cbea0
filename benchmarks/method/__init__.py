"""How everything here is measured: rounds, processor time, the ledger, the bars, the record."""

from __future__ import annotations

from benchmarks.method.bench import Bench
from benchmarks.method.broker import RabbitMQ, purge, ready, wait_consumed, wait_ready
from benchmarks.method.children import PYTHON, ROOT, started, stop, told, until
from benchmarks.method.ledger import Ledger, tally
from benchmarks.method.machine import lacking
from benchmarks.method.processor import Meter, highest_mib
from benchmarks.method.rounds import Run, latencies

__all__ = [
    "PYTHON",
    "ROOT",
    "Bench",
    "Ledger",
    "Meter",
    "RabbitMQ",
    "Run",
    "highest_mib",
    "lacking",
    "latencies",
    "purge",
    "ready",
    "started",
    "stop",
    "tally",
    "told",
    "until",
    "wait_consumed",
    "wait_ready",
]
