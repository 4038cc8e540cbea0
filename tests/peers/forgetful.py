"""A way to RabbitMQ that forgets connections, as a firewall or a load balancer does."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import replace
from types import TracebackType
from typing import Self

from broker.connection import Address

_PIECE_BYTES = 65_536


class Forgetful:
    """Passes bytes on; what it forgets is closed towards the client, and RabbitMQ is not told.

    Args:
        there: where RabbitMQ is.
    """

    def __init__(self, there: Address) -> None:
        self._there = there
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._forgotten: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def address(self) -> Address:
        """Where clients connect."""
        return replace(self._there, host="127.0.0.1", port=self._listener.getsockname()[1])

    def forget(self) -> None:
        """End every connection that there is, on the client's side alone."""
        for near, far in self._pairs:
            self._forgotten.add(far)
            with contextlib.suppress(OSError):
                near.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for each in (each for pair in self._pairs for each in pair):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in (self._listener, *(each for pair in self._pairs for each in pair)):
            each.close()

    def _accept(self) -> None:
        # Shut down, it says that it is no listener any more.
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection((self._there.host, self._there.port))
                self._pairs.append((near, far))
                for pair in ((near, far), (far, near)):
                    self._threads.append(threading.Thread(target=self._pass, args=pair))
                    self._threads[-1].start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                target.sendall(piece)
        if target not in self._forgotten:
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)
