"""The contenders of `benchmarks.batches`: one job, alone and in batches, and a bare client.

The job gives a text a class: a small network over its characters, in numpy. ``python -m
benchmarks.batched`` is the bare client: it consumes from RABBITRY_URL with py-amqp, reads of each
message only its number, and acknowledges a hundred at a time.
"""

from __future__ import annotations

import os
import signal
from functools import cache
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.consumers.account import DIGITS, JOBS, Account
from benchmarks.consumers.place import DEAD_QUEUE, EXCHANGE, QUEUE, SLOTS, routing_key
from consumers.job import job

SINGLE, HUNDRED, MANY, IDLE = "bench.single", "bench.hundred", "bench.many", "bench.idle"
SMALL, LARGE = 100, 500
# As many as all slots run and a batch that is gathered meanwhile, for all of them alike.
PREFETCH = LARGE * (SLOTS + 1)
ACKED_TOGETHER = 100
WORKER = "batched"
URL = "RABBITRY_URL"
CHARACTERS, HIDDEN, CLASSES = 256, 64, 10
# Of a body: [["00000001xxx…
NUMBER = slice(3, 3 + DIGITS)


def _job(function: str) -> dict[str, Any]:
    return {
        "exchange": EXCHANGE,
        "routing_key": routing_key(QUEUE),
        "task": f"benchmarks.batched:{function}",
    }


TOPOLOGY: dict[str, Any] = {
    "version": 1,
    "name": "bench",
    "vhost": {"default_queue_type": "quorum"},
    "exchanges": {EXCHANGE: {"type": "topic"}, "jobs.dead": {"type": "topic"}},
    "queues": {
        QUEUE: {
            "bindings": [{"exchange": EXCHANGE, "routing_key": routing_key(QUEUE)}],
            "retry": {"delay": "1s", "max_delay": "1m", "limit": 5},
            "dead_letter": {"exchange": "jobs.dead"},
        },
        DEAD_QUEUE: {"bindings": [{"exchange": "jobs.dead", "routing_key": "#"}]},
    },
    "jobs": {
        SINGLE: _job("single"),
        HUNDRED: _job("hundred"),
        MANY: _job("many"),
        IDLE: _job("idle"),
    },
    "workers": {
        WORKER: {"queues": [QUEUE], "concurrency": SLOTS, "prefetch": PREFETCH},
    },
}

_ACCOUNT = Account()


@job(SINGLE)
def single(value: str) -> int:
    """Return the class of one text."""
    found = classes([value])
    _ACCOUNT.add(value)
    return int(found[0])


@job(HUNDRED, batch=SMALL, wait="20ms")
def hundred(value: list[str]) -> list[int]:
    """Return the classes of a batch of texts."""
    return _batch(value)


@job(MANY, batch=LARGE, wait="20ms")
def many(value: list[str]) -> list[int]:
    """Return the classes of a batch of texts."""
    return _batch(value)


@job(IDLE, batch=LARGE, wait="20ms")
def idle(value: list[str]) -> None:
    """Do nothing."""
    _ACCOUNT.add_all(value)


def classes(texts: list[str]) -> NDArray[np.intp]:
    """Return the class of each text, all of the same length."""
    hidden, output = _network()
    characters = np.frombuffer("".join(texts).encode("ascii"), dtype=np.uint8)
    inputs = characters.reshape(len(texts), CHARACTERS) / np.float32(40) - 2
    found: NDArray[np.intp] = np.argmax(np.tanh(inputs @ hidden) @ output, axis=1)
    return found


def _batch(texts: list[str]) -> list[int]:
    found: list[int] = classes(texts).tolist()
    _ACCOUNT.add_all(texts)
    return found


@cache
def _network() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    random = np.random.default_rng(1)
    hidden = random.standard_normal((CHARACTERS, HIDDEN), dtype=np.float32) / CHARACTERS**0.5
    return hidden, random.standard_normal((HIDDEN, CLASSES), dtype=np.float32)


def consume(jobs: int) -> None:
    """Consume so many messages with a bare client."""
    from broker.connection import Address, connect

    connection = connect(Address.parse(os.environ[URL]))
    channel = connection.default_channel
    channel.basic_qos(0, PREFETCH, False)
    numbers: list[bytes] = []
    seen = count(1)

    def take(message: Any) -> None:
        numbers.append(message.body[NUMBER])
        if next(seen) == jobs or len(numbers) == ACKED_TOGETHER:
            channel.basic_ack(message.delivery_tag, multiple=True)
            _ACCOUNT.add_all(numbers)
            numbers.clear()

    channel.basic_consume(QUEUE, callback=take)
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    while not ended:
        try:
            connection.drain_events(timeout=0.2)
        except TimeoutError:
            continue
    connection.release()


if __name__ == "__main__":
    consume(int(os.environ[JOBS]))
