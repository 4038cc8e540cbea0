"""Looks into a queue without taking anything out of it, and takes out only what it is told to.

RabbitMQ has no way to look at a message but to deliver it. What is delivered here is given back
by ``basic.nack``, which a quorum queue does not count as a failed attempt (RabbitMQ 4.3: the
header ``x-acquired-count`` rises, ``x-delivery-count`` does not; older ones do count it). What it
was given back it delivers before all else, in the order in which it came back; so whoever stops in
the midst of such messages would put the first of them behind the last. A `Browser` therefore goes
on to their end before it gives anything back.

By py-amqp: pika 1.4 reads a header that is a float as a whole number.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from broker.connection import Address, connect, translated
from broker.errors import AccessRefused, MissingOnBroker, RabbitryError, Unreachable

# A consumer's share; each gets one, and is cancelled before the next begins, so that a slice is
# given back by one command: RabbitMQ's channel loses the order of many.
SLICE = 2000
# Acks that wait for company; of more than 32 commands RabbitMQ's channel keeps the rest.
ACKS = 250
# What is held for longer RabbitMQ takes back; the queue's own may be shorter than a slow replay.
CONSUMER_TIMEOUT_MS = 24 * 3600 * 1000
BASIC_NACK = (60, 120)
QUIET_S = 0.2
PATIENCE_S = 10.0
SHARED_PATIENCE_S = 0.5
HEARTBEAT_EACH_S = 2.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as RabbitMQ delivered it.

    Attributes:
        tag: of the delivery.
        exchange, routing_key: that it came into this queue by.
        redelivered: whether RabbitMQ delivered it before, to a consumer or to a look.
        content: the body, as it is.
        headers: AMQP's header table.
        properties: AMQP's other properties.
    """

    tag: int
    exchange: str
    routing_key: str
    redelivered: bool
    content: bytes = field(repr=False)
    headers: Mapping[str, Any]
    properties: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The message's id, or "" where it has none."""
        return str(self.properties.get("message_id") or self.headers.get("id") or "")


class Browser:
    """A look into one queue; a context manager, which gives back whatever was not let go.

    A process that is killed while it looks counts as a failed attempt for each message that it
    held, as with every consumer.

    Args:
        address: where RabbitMQ is, with the virtual host.
        queue: to look into.
    """

    def __init__(self, address: Address, queue: str) -> None:
        self._address = address
        self._queue = queue
        self._connection: Any = None
        self._channel: Any = None
        self._came: deque[Delivery] = deque()
        # Tags of what is held, in order, and the last tag of each slice.
        self._open: dict[int, None] = {}
        self._ends: list[int] = []
        self._gone: list[int] = []
        self._consumer = ""
        self._arguments: tuple[dict[str, int], ...] = (
            {"x-consumer-timeout": CONSUMER_TIMEOUT_MS},
            {},
        )
        self._slices = 0
        self._last: Delivery | None = None
        self._beat_at = 0.0

    def __enter__(self) -> Self:
        self._connection = connect(self._address)
        try:
            with self._explained():
                self._open_channel()
                self.ready()
        except BaseException:
            self._connection.collect(socket_timeout=1)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._channel.is_open and not isinstance(error, Unreachable):
                self._give_back()
        finally:
            self._connection.collect(socket_timeout=1)

    # -- for whoever looks ----------------------------------------------------------------

    def ready(self) -> int:
        """Return how many messages wait in the queue, which is exact."""
        with self._explained():
            answer = self._channel.queue_declare(self._queue, passive=True)
            return int(answer.message_count)

    def deliveries(
        self, most: int | None = None, *, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[Delivery]:
        """Yield what waits now, in the queue's order; each stays here until it is let go.

        Args:
            most: messages to look at; None for all that wait when this begins.
            stopped: asked before each; no more are yielded once it says so.
        """
        left = self.ready()
        if most is not None:
            left = min(left, most)
        while left > 0 and not stopped():
            came = 0
            for delivery in self._slice(min(SLICE, left), stopped):
                came += 1
                yield delivery
            if not came:
                return
            left -= came

    def let_go(self, delivery: Delivery) -> None:
        """Take a message out of the queue: it is elsewhere, or is to be deleted."""
        del self._open[delivery.tag]
        self._gone.append(delivery.tag)
        if len(self._gone) >= ACKS:
            self._ack()

    def pause(self, seconds: float, *, stopped: Callable[[], bool] = lambda: False) -> None:
        """Wait, at most until it is stopped, and keep the connection alive."""
        until = time.monotonic() + seconds
        with self._explained():
            while (left := until - time.monotonic()) > 0 and not stopped():
                self._drain(min(left, QUIET_S))

    def beat(self) -> None:
        """Keep the connection alive; to be called every few seconds."""
        now = time.monotonic()
        if now >= self._beat_at:
            self._beat_at = now + HEARTBEAT_EACH_S
            with self._explained():
                self._connection.heartbeat_check()

    # -- the wire -------------------------------------------------------------------------

    def _open_channel(self) -> None:
        self._channel = self._connection.channel()
        # Bodies as they are, whatever their content encoding says.
        self._channel.auto_decode = False

    def _slice(self, most: int, stopped: Callable[[], bool] = lambda: False) -> Iterator[Delivery]:
        """Yield the next messages, by a consumer of their own."""
        self._slices += 1
        tag = f"rabbitry-look-{self._slices:06}"
        with self._explained():
            self._consume(tag, most)
        self._consumer, self._ends = tag, [*self._ends, 0]
        came = 0
        heard_at = time.monotonic()
        while came < most and not stopped():
            if not self._came:
                with self._explained():
                    drained = self._drain(QUIET_S)
                if not drained and not self._came:
                    if not self.ready():
                        if not self._came:
                            break
                    elif time.monotonic() - heard_at > PATIENCE_S:
                        raise RabbitryError(
                            f"queue {self._queue!r} has messages, but RabbitMQ delivers none of"
                            f" them here for {PATIENCE_S:.0f} s; another may be its single active"
                            " consumer (stop that one first), or it is a stream"
                        )
                continue
            heard_at = time.monotonic()
            came += 1
            self._last = self._came.popleft()
            yield self._last
        self._cancel()

    def _consume(self, tag: str, most: int) -> None:
        import amqp.exceptions

        for arguments in self._arguments:
            try:
                self._channel.basic_qos(0, most, False)
                self._channel.basic_consume(
                    self._queue, consumer_tag=tag, callback=self._take, arguments=arguments
                )
            except amqp.exceptions.PreconditionFailed:
                # Classic queues, and quorum queues before 4.3, do not know the argument.
                if self._slices > 1 or not arguments:
                    raise
                self._open_channel()
            else:
                self._arguments = (arguments,)
                return

    def _cancel(self) -> None:
        if self._consumer:
            with self._explained():
                self._channel.basic_cancel(self._consumer)
            self._consumer = ""

    def _take(self, message: Any) -> None:
        info = message.delivery_info
        properties = dict(message.properties)
        delivery = Delivery(
            tag=int(info["delivery_tag"]),
            exchange=info["exchange"],
            routing_key=info["routing_key"],
            redelivered=bool(info["redelivered"]),
            content=_bytes(message.body),
            headers=properties.pop("application_headers", None) or {},
            properties=properties,
        )
        self._open[delivery.tag] = None
        self._ends[-1] = delivery.tag
        self._came.append(delivery)

    def _drain(self, timeout_s: float) -> bool:
        self.beat()
        try:
            self._connection.drain_events(timeout=timeout_s)
        except TimeoutError:
            return False
        return True

    def _ack(self) -> None:
        """Ack what was let go: by one command as far as nothing that is held lies between."""
        first_held = next(iter(self._open), None)
        gone, self._gone = self._gone, []
        together = [tag for tag in gone if first_held is None or tag < first_held]
        with self._explained():
            if together:
                self._channel.basic_ack(max(together), multiple=True)
            for tag in gone:
                if first_held is not None and tag > first_held:
                    self._channel.basic_ack(tag)

    # -- giving back ------------------------------------------------------------------------

    def _give_back(self) -> None:
        self._stop()
        while self._last is not None and self._last.redelivered and (ready := self.ready()):
            before = self._last.tag
            for delivery in self._slice(min(SLICE, ready)):
                if not delivery.redelivered:
                    break
            self._stop()
            if self._last.tag == before:
                break
        self._ack()
        with self._explained():
            for end in self._ends:
                held = [tag for tag in self._open if tag <= end]
                for tag in held:
                    del self._open[tag]
                if not held:
                    continue
                before = self.ready()
                # Which py-amqp lacks: all up to this tag, back into the queue.
                self._channel.send_method(BASIC_NACK, "Lbb", (held[-1], True, True))
                self._wait_ready(before + len(held))
            self._connection.close()

    def _stop(self) -> None:
        """Take nothing more, and know what came last."""
        self._cancel()
        if self._came:
            self._last = self._came[-1]
            self._came.clear()

    def _wait_ready(self, least: int) -> None:
        """Wait until RabbitMQ shows what was given back: whoever looks next finds it there.

        Acks that were sent before are applied then, too; a channel that closes drops those that
        it has not passed on to the queue yet.
        """
        began = time.monotonic()
        while True:
            answer = self._channel.queue_declare(self._queue, passive=True)
            # Others may take at once what comes back.
            patience_s = PATIENCE_S if not answer.consumer_count else SHARED_PATIENCE_S
            if answer.message_count >= least or time.monotonic() - began > patience_s:
                return
            self._drain(0.01)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        import amqp.exceptions

        with translated(self._address):
            try:
                yield
            except amqp.exceptions.NotFound as exc:
                raise MissingOnBroker(
                    f"RabbitMQ has no queue {self._queue!r} in virtual host"
                    f" {self._address.vhost_name!r}; `rabbitry queues list --all` shows those that"
                    " there are"
                ) from exc
            except amqp.exceptions.AccessRefused as exc:
                if not isinstance(exc, amqp.exceptions.ChannelError):
                    raise
                raise AccessRefused(
                    f"user {self._address.user!r} may not read queue {self._queue!r}:"
                    f" {exc.reply_text}; give it the right to read it"
                ) from exc
            except amqp.exceptions.ChannelError as exc:
                raise RabbitryError(
                    f"queue {self._queue!r} cannot be looked into: {exc.reply_text}"
                ) from exc


def _bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else bytes(body or b"")
