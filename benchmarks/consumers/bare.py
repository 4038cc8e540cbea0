"""Clients without a command of their own for workers: ``python -m benchmarks.consumers.bare NAME``.

Two processes, each with a connection of its own, that acknowledge every message when it is done.
kombu, pika and aio-pika decode the body and know nothing else of a job. FastStream is among them
since its own command wants libraries in versions that others here cannot have.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

from benchmarks.consumers.account import Account
from benchmarks.consumers.place import PREFETCH, QUEUE, SLOTS, URL
from benchmarks.loop import run

# Between two looks at whether to end.
LOOK_S = 0.2


def kombu() -> None:
    """Consume by a consumer of kombu."""
    from kombu import Connection, Consumer, Queue

    account, ended = Account(), _ended()

    def take(message: Any) -> None:
        account.add(message.payload[0][0])
        message.ack()

    with Connection(os.environ[URL]) as connection:
        queue = Queue(QUEUE, no_declare=True)
        with Consumer(
            connection, [queue], on_message=take, prefetch_count=_prefetch(), accept=["json"]
        ):
            while not ended.is_set():
                try:
                    connection.drain_events(timeout=LOOK_S)
                except TimeoutError:
                    continue


def pika() -> None:
    """Consume by pika's blocking channel."""
    import pika

    account, ended = Account(), _ended()

    def take(channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        account.add(json.loads(body)[0][0])
        channel.basic_ack(method.delivery_tag)

    connection = pika.BlockingConnection(pika.URLParameters(os.environ[URL]))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=_prefetch())
    channel.basic_consume(QUEUE, take)
    while not ended.is_set():
        connection.process_data_events(time_limit=LOOK_S)
    connection.close()


def aio_pika() -> None:
    """Consume by a queue of aio-pika."""
    run(_aio_pika())


async def _aio_pika() -> None:
    import aio_pika

    account, ended = Account(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        async with message.process():
            account.add(json.loads(message.body)[0][0])

    async with await aio_pika.connect(os.environ[URL]) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=_prefetch())
        queue = await channel.get_queue(QUEUE)
        await queue.consume(take)
        await ended.wait()


def faststream() -> None:
    """Consume by a subscriber of FastStream."""
    from benchmarks.consumers.apps import faststream_app

    run(faststream_app.run())


def _prefetch() -> int:
    return int(os.environ[PREFETCH]) // SLOTS


def _ended() -> threading.Event:
    """Return an event that SIGTERM sets."""
    found = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: found.set())
    return found


def main() -> None:
    """Run the processes until SIGTERM."""
    consumers: tuple[Callable[[], None], ...] = (kombu, pika, aio_pika, faststream)
    consume = next(each for each in consumers if each.__name__ == sys.argv[1])
    processes = [get_context("fork").Process(target=consume) for _ in range(SLOTS)]
    for process in processes:
        process.start()

    def end(*_: Any) -> None:
        for process in processes:
            process.terminate()

    signal.signal(signal.SIGTERM, end)
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
