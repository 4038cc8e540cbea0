"""The producing process of a test: publishes what it is allowed to, writes what became of each job.

Its standard input tells it what to do, a line each: `LEG JOB COUNT` lets it publish so many of a
job, their ids beginning with the leg's name; `flush` waits for what is under way. Its standard
output says how many were handed over, and `flushed`. It ends when its standard input does.
"""

from __future__ import annotations

import argparse
import json
import logging
import queue
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from broker.receipt import Receipt
from broker.topology import Topology
from producers.publisher import Job, Publisher

# Every so many jobs one that needs several frames.
LARGE_EVERY, LARGE_CHARACTERS = 97, 200_000


class Account:
    """Writes how each publish ended, a JSON object a line.

    The seconds of `publish_many` last until it yields the receipt, those of `publish` until the
    receipt is done.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._begun: dict[str, float] = {}

    def begin(self, id: str) -> None:
        self._begun[id] = time.monotonic()

    def end(self, receipt: Receipt, at: float | None = None) -> None:
        outcome = receipt.outcome
        record: dict[str, Any] = {
            "id": receipt.message_id,
            "outcome": type(outcome).__name__,
            "sent": getattr(outcome, "sent", receipt.sent),
            "redelivered": receipt.redelivered,
            "reason": str(outcome)[:300] if isinstance(outcome, Exception) else "",
            "seconds": round((at or time.monotonic()) - self._begun.pop(receipt.message_id), 3),
        }
        with self._lock:
            self._file.write(json.dumps(record) + "\n")


class Work:
    """The jobs that standard input allows; safe to take from several threads."""

    def __init__(self, account: Account, publisher: Publisher) -> None:
        self._account = account
        self._publisher = publisher
        self._lock = threading.Lock()
        self._jobs = self._allowed()

    def __iter__(self) -> Iterator[Job]:
        while True:
            with self._lock:
                job = next(self._jobs, None)
            if job is None:
                return
            yield job

    def _allowed(self) -> Iterator[Job]:
        handed_over = 0
        for line in sys.stdin:
            if line == "flush\n":
                self._publisher.flush()
                _say("flushed")
                continue
            leg, name, count = line.split()
            for _ in range(int(count)):
                id = f"{leg}-{handed_over:06}"
                self._account.begin(id)
                large = handed_over % LARGE_EVERY == 0
                yield Job(name, (id, "x" * (LARGE_CHARACTERS if large else 10)), id=id)
                handed_over += 1
                if handed_over % 20 == 0:
                    _say(str(handed_over))


def main() -> None:
    """Publish until the input ends, then wait for every outcome."""
    parser = argparse.ArgumentParser()
    parser.add_argument("topology", type=Path)
    parser.add_argument("url")
    parser.add_argument("account", type=Path)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--timeout-s", type=float, default=30.0)
    options = parser.parse_args()
    logging.basicConfig(format="%(relativeCreated)d ms %(name)s %(message)s", level=logging.INFO)
    with (
        options.account.open("w") as file,
        Publisher(Topology.load(options.topology), options.url) as publisher,
    ):
        account = Account(file)
        work = Work(account, publisher)
        if options.threads:
            _one_at_a_time(publisher, work, account, options.threads, options.timeout_s)
        else:
            for receipt in publisher.publish_many(work, timeout_s=options.timeout_s):
                account.end(receipt)


def _one_at_a_time(
    publisher: Publisher, work: Work, account: Account, threads: int, timeout_s: float
) -> None:
    ended: queue.SimpleQueue[tuple[Receipt, float]] = queue.SimpleQueue()
    failures: list[BaseException] = []
    handed_over = [0] * threads

    def publish(index: int) -> None:
        try:
            for job in work:
                receipt = publisher.publish(job, timeout_s=timeout_s)
                receipt.add_done_callback(lambda done: ended.put((done, time.monotonic())))
                handed_over[index] += 1
        except BaseException as exc:  # noqa: BLE001 - told by the main thread
            failures.append(exc)

    running = [threading.Thread(target=publish, args=(index,)) for index in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if failures:
        raise failures[0]
    for _ in range(sum(handed_over)):
        account.end(*ended.get(timeout=timeout_s + 5))


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
