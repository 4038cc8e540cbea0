"""Where a replacement happens: the virtual host, over HTTP and over AMQP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

from broker.connection import Address, connect, translated
from broker.management import Management
from broker.topology.replace.bindings import Bindings

Say = Callable[[str], object]
# A statistic of RabbitMQ may be 9 s old: 5 s until a queue tells it, 4 s until it shows.
SETTLE_S = 12.0
PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Ready:
    """What a passive declare tells, which is exact."""

    messages: int
    consumers: int


@dataclass(slots=True)
class Site:
    """Where a replacement happens.

    Attributes:
        management: the management API.
        address: for AMQP, with the virtual host.
        say: told what happens, a line at a time.
        settle_s: seconds for which a queue must show no message before it is deleted.
        patience_s: seconds without any progress after which a queue that does not drain gets
            its messages back.
        check: raises ApplyRefused where nothing more may be done: the lock is lost.
    """

    management: Management
    address: Address
    say: Say
    settle_s: float = SETTLE_S
    patience_s: float = PATIENCE_S
    check: Callable[[], object] = lambda: None
    _connection: Any = field(default=None, repr=False)
    _channel: Any = field(default=None, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            with suppress(OSError):
                self._connection.release()

    @property
    def vhost(self) -> str:
        """The virtual host."""
        return self.address.vhost_name

    @property
    def bindings(self) -> Bindings:
        """The bindings of the virtual host."""
        return Bindings(self.management, self.vhost)

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """A channel of its own on the connection; what it holds goes back when it ends."""
        channel = self._connected().channel()
        try:
            yield channel
        finally:
            if channel.is_open:
                channel.close()

    def ready(self, queue: str) -> Ready | None:
        """Return how many messages wait in a queue, or None where there is no such queue.

        Raises:
            Unreachable, AccessRefused: see `broker.errors`.
        """
        import amqp.exceptions

        with translated(self.address):
            if self._channel is None or not self._channel.is_open:
                self._channel = self._connected().channel()
            try:
                answer = self._channel.queue_declare(queue, passive=True)
            except amqp.exceptions.NotFound:
                self._channel = None
                return None
            return Ready(answer.message_count, answer.consumer_count)

    def _connected(self) -> Any:
        if self._connection is None:
            self._connection = connect(self.address)
        return self._connection
