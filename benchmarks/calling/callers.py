"""Who calls in `benchmarks.call`: one way for each contender, all from this process."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from benchmarks import loop
from benchmarks.calling.echoes import AIO_PIKA_QUEUE, FASTSTREAM_QUEUE, PIKA_QUEUE, QUEUES
from broker.connection import Address
from producers.caller import Caller

TIMEOUT_S = 60.0
# Of all calls of a run together, where those of a peer have no timeout.
RUN_TIMEOUT_S = 180.0
T = TypeVar("T")


class Way(ABC):
    """How one contender calls.

    Attributes:
        queue: that its requests go to.
    """

    queue: str

    @abstractmethod
    def timed(self, value: str, count: int) -> list[float]:
        """Call one at a time; return the seconds of each call whose reply was right."""

    @abstractmethod
    def together(self, value: str, count: int) -> int:
        """Send all requests, then wait for all replies; return how many were right."""

    def again(self) -> int:
        """Return how many replies came to no call, where that can be known."""
        return 0


class Blocking(Way):
    """One that has a function which returns the reply."""

    @abstractmethod
    def call(self, value: Any) -> Any:
        """Call, and wait for the reply."""

    def timed(self, value: str, count: int) -> list[float]:
        seconds = []
        for _ in range(count):
            began = time.perf_counter()
            right = self.call(value) == value
            if right:
                seconds.append(time.perf_counter() - began)
        return seconds


class Rabbitry(Blocking):
    """Ours."""

    def __init__(self, caller: Caller, pool: str) -> None:
        self._caller = caller
        self._job = self.queue = QUEUES[pool]

    def call(self, value: Any) -> Any:
        return self._caller.call(self._job, value, timeout_s=TIMEOUT_S)

    def together(self, value: str, count: int) -> int:
        calls = [self._caller.submit(self._job, value, timeout_s=TIMEOUT_S) for _ in range(count)]
        return sum(call.result() == value for call in calls)

    def again(self) -> int:
        return self._caller.unknown_replies


class CeleryRpc(Blocking):
    """Celery with its ``rpc://`` backend.

    Args:
        app: with the job.
        queue: of its requests, and the job's name.
    """

    def __init__(self, app: Any, queue: str) -> None:
        self._task = app.tasks[queue]
        self.queue = queue

    def call(self, value: Any) -> Any:
        return self._task.delay(value).get(timeout=TIMEOUT_S)

    def together(self, value: str, count: int) -> int:
        results = [self._task.delay(value) for _ in range(count)]
        return sum(result.get(timeout=TIMEOUT_S) == value for result in results)


class Pika(Blocking):
    """Bare pika, over direct reply-to."""

    def __init__(self, address: Address) -> None:
        import pika

        self.queue = PIKA_QUEUE
        parameters = pika.URLParameters(address.url)
        # While the others are measured nobody reads what comes.
        parameters.heartbeat = 0
        self._properties = pika.BasicProperties(
            delivery_mode=2, reply_to="amq.rabbitmq.reply-to", correlation_id="1"
        )
        self._connection = pika.BlockingConnection(parameters)
        self._channel = self._connection.channel()
        self._answers: list[bytes] = []
        self._channel.basic_consume("amq.rabbitmq.reply-to", self._on_reply, auto_ack=True)

    def _on_reply(self, _channel: Any, _method: Any, _properties: Any, body: bytes) -> None:
        self._answers.append(body)

    def _send(self, content: bytes) -> None:
        self._channel.basic_publish("", PIKA_QUEUE, content, self._properties)

    def _receive(self, count: int) -> list[bytes]:
        deadline = time.monotonic() + TIMEOUT_S
        while len(self._answers) < count and time.monotonic() < deadline:
            self._connection.process_data_events(time_limit=1)
        return self._answers

    def call(self, value: Any) -> Any:
        self._answers = []
        if isinstance(value, bytes):
            self._send(value)
            return b"".join(self._receive(1))
        self._send(value.encode())
        return b"".join(self._receive(1)).decode()

    def together(self, value: str, count: int) -> int:
        content, self._answers = value.encode(), []
        for _ in range(count):
            self._send(content)
        return sum(each == content for each in self._receive(count))

    def close(self) -> None:
        """End its connection."""
        self._connection.close()


class Loop:
    """An event loop in a thread of its own, which keeps connections alive between two runs."""

    def __init__(self) -> None:
        self._loop = loop.new()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end, from another thread.

        Raises:
            TimeoutError: it does not end.
        """
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(RUN_TIMEOUT_S)

    def close(self) -> None:
        """End the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Awaited(Way):
    """One whose calls are awaited.

    Args:
        running: the loop that they run in.
        call: awaits the reply to a value.
        queue: of its requests.
    """

    def __init__(self, running: Loop, call: Callable[[str], Awaitable[Any]], queue: str) -> None:
        self._loop = running
        self._call = call
        self.queue = queue

    def timed(self, value: str, count: int) -> list[float]:
        return self._loop.run(self._timed(value, count))

    async def _timed(self, value: str, count: int) -> list[float]:
        seconds = []
        for _ in range(count):
            began = time.perf_counter()
            right = await self._call(value) == value
            if right:
                seconds.append(time.perf_counter() - began)
        return seconds

    def together(self, value: str, count: int) -> int:
        return self._loop.run(self._together(value, count))

    async def _together(self, value: str, count: int) -> int:
        replies: Sequence[Any] = await asyncio.gather(*(self._call(value) for _ in range(count)))
        return sum(each == value for each in replies)


async def aio_pika_call(address: Address) -> tuple[Callable[[str], Awaitable[Any]], Any]:
    """Connect aio-pika's RPC; return its call, and what ends it."""
    import aio_pika
    from aio_pika.patterns import JsonRPC

    connection = await aio_pika.connect_robust(address.url)
    channel = await connection.channel()
    rpc = await JsonRPC.create(channel, exclusive=True)

    async def call(value: str) -> Any:
        return await rpc.call(
            AIO_PIKA_QUEUE, {"value": value}, delivery_mode=aio_pika.DeliveryMode.PERSISTENT
        )

    return call, connection.close


async def faststream_call(address: Address) -> tuple[Callable[[str], Awaitable[Any]], Any]:
    """Connect FastStream's requests; return its call, and what ends it."""
    from faststream.rabbit import RabbitBroker

    broker = RabbitBroker(address.url)
    await broker.connect()

    async def call(value: str) -> Any:
        reply = await broker.request(value, queue=FASTSTREAM_QUEUE, persist=True, timeout=TIMEOUT_S)
        return await reply.decode()

    return call, broker.stop
