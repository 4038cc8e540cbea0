"""Starts a publisher."""

from __future__ import annotations

from benchmarks.method import PYTHON, lacking, told
from benchmarks.publishers import librabbitmq
from benchmarks.publishers.order import Order, Taken

C = "librabbitmq"
# By the beginning of a publisher's name: the module without which it cannot run.
MODULES = {
    "dramatiq": "dramatiq",
    "taskiq": "taskiq_aio_pika",
    "faststream": "faststream",
    "aio_pika": "aio_pika",
}


def published(name: str, order: Order) -> Taken:
    """Let a publisher do an order, and return what it took.

    Args:
        name: of a function of `benchmarks.publishers`, or `C`.
        order: what it is to do.

    Raises:
        SystemExit: it failed.
    """
    if name == C:
        return librabbitmq.publish(order)
    command = (*PYTHON, "benchmarks.publishers", name)
    return Taken(**told(command, given=order.document().encode()))


def needs(name: str) -> str | None:
    """Say what a publisher lacks here; None where it can run."""
    if name == C:
        return librabbitmq.needs()
    module = next((each for begin, each in MODULES.items() if name.startswith(begin)), None)
    return lacking(module) if module else None
