"""A producer and a consumer that never stop, and a ledger of what they did."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import amqp.exceptions

from broker.connection import Address, connect
from broker.receipt import Receipt, Routed
from broker.topology import Topology
from broker.topology.replace.moves import REDELIVERED
from producers.publisher import Job, Publisher
from tests.waiting import until

# What RabbitMQ or a mover marks so may be a message for the second time.
Delivery = tuple[str, bool]


@dataclass
class Ledger:
    """What was published, and what came of it."""

    routed: set[str] = field(default_factory=set)
    unroutable: set[str] = field(default_factory=set)
    deliveries: list[Delivery] = field(default_factory=list)

    @property
    def consumed(self) -> set[str]:
        return {id for id, _ in self.deliveries}

    @property
    def twice_unflagged(self) -> list[str]:
        """Messages that came more often than once without any mark."""
        counts = Counter(id for id, flagged in self.deliveries if not flagged)
        return [id for id, count in counts.items() if count > 1]

    @property
    def flagged(self) -> int:
        return sum(flagged for _, flagged in self.deliveries)

    def __str__(self) -> str:
        return (
            f"routed {len(self.routed)}, unroutable {len(self.unroutable)}, consumed"
            f" {len(self.consumed)} in {len(self.deliveries)} deliveries, of them"
            f" {self.flagged} flagged as redelivered"
        )


class Traffic:
    """Publishes and consumes in threads of their own until it is left."""

    def __init__(
        self, topology: Topology, address: Address, queue: str, *, job: str = "demo.echo"
    ) -> None:
        self.ledger = Ledger()
        self.topology = topology
        self.address = address
        self.queue = queue
        self.job = job
        self.cancelled = 0
        self._stop_producing = threading.Event()
        self._stop_consuming = threading.Event()
        self._hurry = threading.Event()
        self._threads = [
            threading.Thread(target=self._consume),
            threading.Thread(target=self._produce),
        ]
        self._failure: list[BaseException] = []

    def backlog(self, count: int) -> None:
        """Publish messages before anybody consumes, in order."""
        with Publisher(self.topology, self.address.url) as publisher:
            receipts = [self._publish(publisher, f"early-{number}") for number in range(count)]
            for receipt in receipts:
                self._enter(receipt)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        until(lambda: self.ledger.deliveries, timeout_s=20, what="the first delivery")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._stop_producing.set()
        self._stop_consuming.set()
        self._hurry.set()
        for thread in self._threads:
            thread.join()

    def finish(self, timeout_s: float = 60) -> Ledger:
        """Stop publishing, let everything be consumed, and return the ledger."""
        self._stop_producing.set()
        self._hurry.set()
        self._threads[1].join()
        until(
            lambda: self._failure or self.ledger.routed <= self.ledger.consumed,
            timeout_s=timeout_s,
            what="all that was published to be consumed",
        )
        self._stop_consuming.set()
        self._threads[0].join()
        assert not self._failure, self._failure
        return self.ledger

    def _publish(self, publisher: Publisher, id: str) -> Receipt:
        return publisher.publish(Job(self.job, (id,), id=id))

    def _enter(self, receipt: Receipt) -> None:
        until(lambda: receipt.done, timeout_s=60, what="a confirm")
        routed = isinstance(receipt.outcome, Routed)
        (self.ledger.routed if routed else self.ledger.unroutable).add(receipt.message_id)

    def _produce(self) -> None:
        try:
            with Publisher(self.topology, self.address.url) as publisher:
                number = 0
                while not self._stop_producing.wait(0.002):
                    self._enter(self._publish(publisher, f"late-{number}"))
                    number += 1
        except BaseException as exc:  # noqa: BLE001 - told by the test's own thread
            self._failure.append(exc)

    def _consume(self) -> None:
        try:
            while not self._stop_consuming.is_set():
                connection = connect(self.address)
                try:
                    self._consume_on(connection)
                except (
                    amqp.exceptions.NotFound,
                    amqp.exceptions.ConsumerCancelled,
                    amqp.exceptions.InternalError,
                ):
                    # The queue is gone for a moment, or about to go, to which RabbitMQ may say
                    # 541: a worker comes back, and so does this.
                    self.cancelled += 1
                finally:
                    connection.release()
        except BaseException as exc:  # noqa: BLE001 - told by the test's own thread
            self._failure.append(exc)

    def _consume_on(self, connection: Any) -> None:
        channel = connection.default_channel
        channel.basic_qos(0, 10, False)
        channel.basic_consume(self.queue, callback=self._on_message)
        while not self._stop_consuming.is_set():
            try:
                connection.drain_events(timeout=0.1)
            except TimeoutError:
                continue

    def _on_message(self, message: Any) -> None:
        headers = message.properties.get("application_headers") or {}
        flagged = bool(message.delivery_info["redelivered"] or headers.get(REDELIVERED))
        self.ledger.deliveries.append((message.properties["message_id"], flagged))
        message.channel.basic_ack(message.delivery_tag)
        # A slow consumer, so that there is something to move; quick at the end.
        self._hurry.wait(0.01)
