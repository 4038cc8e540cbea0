"""Writes the messages of a confirmed channel: by the connection's thread, or by who publishes one.

To wake another thread takes longer than to write a small message. So a message that comes alone is
written where it is published; what comes in numbers is joined by the connection's thread.
"""

from __future__ import annotations

import contextlib
import threading

from broker.flight import Flight
from broker.wire import Wire


class Outlet:
    """Moves messages from a flight onto the wire; one thread at a time.

    Args:
        flight: the messages.

    Attributes:
        wire: the open connection's, or None.
        blocked: whether RabbitMQ takes none for now.
    """

    def __init__(self, flight: Flight) -> None:
        self.wire: Wire | None = None
        self.blocked = False
        self._flight = flight
        self._writing = threading.Lock()

    @property
    def flows(self) -> bool:
        """Whether what is published now is written now."""
        wire = self.wire
        return wire is not None and not self.blocked and not wire.unwritten

    def attach(self, wire: Wire) -> None:
        """Write to a channel that was just opened."""
        with self._writing:
            self._flight.begin_channel()
            self.wire = wire

    def detach(self) -> Wire | None:
        """Write no more; returns what was written to. Nobody is writing when it returns."""
        with self._writing:
            wire, self.wire = self.wire, None
        return wire

    def write(self) -> None:
        """Write what waits, as far as the connection takes it.

        Raises:
            OSError: the connection is lost.
        """
        with self._writing:
            self._write()

    def write_here(self) -> bool:
        """Write what waits in a thread that publishes; False where that is for the loop's to do."""
        if not self._writing.acquire(blocking=False):
            return False
        try:
            if not self.flows or self.wire is None or not self.wire.takes_two_threads:
                return False
            # The loop meets it too, when it reads.
            with contextlib.suppress(OSError):
                self._write()
            return self.flows
        finally:
            self._writing.release()

    def _write(self) -> None:
        wire = self.wire
        while wire is not None and self.flows:
            buffers = self._flight.next_buffers(wire.frame_max)
            if not buffers:
                return
            wire.write(*buffers)
