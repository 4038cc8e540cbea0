"""Cancels jobs: tells all workers that nobody wants them any more."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable

from broker.cancellation import Cancellation, myself
from broker.confirmed import PUBLISH_TIMEOUT_S, ConfirmedChannel
from broker.connection import Address
from broker.errors import InvalidInput, RabbitryError
from broker.receipt import Receipt
from broker.topology import Topology
from broker.topology.cancellations import cancellations_of

logger = logging.getLogger("rabbitry.call")

# For what a caller gives up; after that the deadline of its calls is over as well, or nearly so.
GIVE_UP_S = 10.0
CLOSE_S = 1.0


class Canceller:
    """Publishes cancellations over a connection of its own, opened with the first.

    It is not the connection that calls use: RabbitMQ closes a channel that publishes to an
    exchange which is missing, or which the user may not write to, and replies would be lost.

    Args:
        topology: whose jobs they are.
        address: where RabbitMQ is.
        by: who cancels, for people to read; process and host by default.
        clock: seconds since 1970-01-01 UTC.
    """

    def __init__(
        self,
        topology: Topology,
        address: Address,
        *,
        by: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._names = cancellations_of(topology)
        self._name = topology.name
        self._address = address
        self._by = by
        self._clock = clock
        self._lock = threading.Lock()
        self._channel: ConfirmedChannel | None = None
        self._pid = os.getpid()

    def check(self, ids: Iterable[str]) -> None:
        """Look whether jobs can be cancelled, and have such ids; nothing is sent.

        Raises:
            InvalidInput: the topology has no workers, or no job has such an id.
        """
        if self._names is None:
            raise InvalidInput(
                f"the topology {self._name!r} has no workers that would hear of it; cancel with the"
                " file that the workers run with"
            )
        for id in ids:
            Cancellation(id, "", 0).message()

    def connect(self, *, timeout_s: float = PUBLISH_TIMEOUT_S) -> None:
        """Wait for the connection; not needed, but says early what is wrong.

        Raises:
            Unreachable, AccessRefused, VirtualHostMissing: the first attempt failed.
        """
        self._open().loop.wait_connected(timeout_s=timeout_s)

    def cancel(self, id: str, *, timeout_s: float = PUBLISH_TIMEOUT_S) -> Receipt:
        """Cancel a job; the receipt says whether RabbitMQ has taken it.

        A worker that has begun the job shows it `current_job().cancelled`; one that has not does
        not begin it any more. Which of both, and whether there is such a job, RabbitMQ cannot say.

        Args:
            id: of the job's message.
            timeout_s: seconds until the outcome is known, connecting included.

        Raises:
            InvalidInput: the topology has no workers, or no job has such an id.
        """
        self.check([id])
        assert self._names is not None
        by = myself() if self._by is None else self._by
        message = Cancellation(id, by, round(self._clock() * 1000)).message()
        return self._open().publish(
            message, exchange=self._names.exchange, routing_key="", timeout_s=timeout_s
        )

    def give_up(self, id: str) -> None:
        """Cancel a call that nobody waits for any more; never waits, and never raises."""
        if self._names is None:
            return
        try:
            if not self._open().has_room:
                logger.info("call %s is not cancelled: others are being cancelled already", id)
                return
            self.cancel(id, timeout_s=GIVE_UP_S).add_done_callback(_note)
        # Such as an id that is too long: the call has failed for that before.
        except RabbitryError as exc:
            logger.info("call %s is not cancelled: %s", id, exc)

    def _open(self) -> ConfirmedChannel:
        if self._pid != os.getpid():
            # Another thread may have held it when the process was forked.
            self._pid, self._lock = os.getpid(), threading.Lock()
        with self._lock:
            if self._channel is None:
                self._channel = ConfirmedChannel(self._address, name="rabbitry-canceller")
            return self._channel

    def close(self, *, timeout_s: float = CLOSE_S) -> None:
        """Wait for what is under way, then close the connection, where there is one."""
        with self._lock:
            channel = self._channel
        if channel is not None:
            channel.close(timeout_s=timeout_s)


def _note(receipt: Receipt) -> None:
    if isinstance(receipt.outcome, RabbitryError):
        logger.info("a call is not cancelled: %s", receipt.outcome)
