"""A network between a worker and RabbitMQ that can be cut: nothing passes, and nobody is told.

As root it is a real one: the worker lives in a network namespace, and what it sends goes through
another one, a router, which forwards nothing while the network is cut. No FIN or RST passes, and
both ends' own TCP finds out by itself. Elsewhere a proxy stands between them, which then reads
nothing any more and closes nothing.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from broker.connection import Address
from tests.faults.nodes import Hurt

# For measurements between networks (RFC 2544): nobody's own.
_BLOCK = "198.18"
_RULE = "table ip cut { chain forward { type filter hook forward priority 0; policy drop; }; }"
_PIECE_BYTES = 65_536


class Network(Protocol):
    """What stands between a worker and RabbitMQ.

    Attributes:
        kind: ``namespaces`` or ``proxy``.
        prefix: of a command that is to live behind it.
    """

    kind: str
    prefix: tuple[str, ...]

    def address(self, there: Address) -> Address:
        """Return where RabbitMQ is, seen from behind the network."""
        ...

    def cut(self) -> None:
        """Let nothing pass any more."""
        ...

    def restore(self) -> None:
        """Let everything pass again."""
        ...


@contextmanager
def network(hurt: Hurt) -> Iterator[Network]:
    """Make a network to a RabbitMQ, a real one where this machine can; it is gone afterwards."""
    with contextlib.ExitStack() as ending:
        try:
            found: Network = Namespaces(hurt, ending)
        except NoNamespaces:
            ending.pop_all().close()
            proxy = Proxy(hurt.address)
            ending.callback(proxy.close)
            found = proxy
        yield found


class NoNamespaces(Exception):
    """This machine, or this user, cannot have any."""


class Namespaces:
    """Worker, router, RabbitMQ: two wires between three network namespaces.

    Args:
        hurt: whose node listens on the wire's end, too.
        ending: removes them.

    Raises:
        NoNamespaces: the user is not root, a tool is missing, or RabbitMQ is in a container.
    """

    kind = "namespaces"

    def __init__(self, hurt: Hurt, ending: contextlib.ExitStack) -> None:
        if os.geteuid() != 0 or hurt.way == "engine" or not all(map(shutil.which, ("ip", "nft"))):
            raise NoNamespaces
        # Two wires of four addresses each, other ones for each process that tests.
        name, (third, first) = str(os.getpid()), divmod(os.getpid() % 8192 * 8, 256)
        subnet = f"{_BLOCK}.{third}"
        self._host, router_host = f"{subnet}.{first + 1}", f"{subnet}.{first + 2}"
        router_worker, worker = f"{subnet}.{first + 5}", f"{subnet}.{first + 6}"
        self._router, inside = f"rabbitry-r{name}", f"rabbitry-w{name}"
        self.prefix = ("ip", "netns", "exec", inside)
        wire = f"rb{name}"
        for each in (self._router, inside):
            _make(("ip", "netns", "add", each))
            ending.callback(_try, "ip", "netns", "delete", each)
        in_router, in_worker = ("ip", "-n", self._router), ("ip", "-n", inside)
        host_end = ("type", "veth", "peer", "name", "host", "netns", self._router)
        worker_end = ("type", "veth", "peer", "name", "worker", "netns", self._router)
        for command in (
            ("ip", "link", "add", wire, *host_end),
            ("ip", "address", "add", f"{self._host}/30", "dev", wire),
            ("ip", "link", "set", wire, "up"),
            ("ip", "route", "add", f"{worker}/32", "via", router_host, "dev", wire),
            (*in_router, "address", "add", f"{router_host}/30", "dev", "host"),
            (*in_router, "link", "set", "host", "up"),
            (*in_worker, "link", "add", "router", *worker_end),
            (*in_router, "address", "add", f"{router_worker}/30", "dev", "worker"),
            (*in_router, "link", "set", "worker", "up"),
            (*in_worker, "address", "add", f"{worker}/30", "dev", "router"),
            (*in_worker, "link", "set", "router", "up"),
            (*in_worker, "link", "set", "lo", "up"),
            (*in_worker, "route", "add", "default", "via", router_worker),
            (*self._in_router(), "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"),
        ):
            _make(command)
        ending.callback(_try, "ip", "link", "delete", wire)
        hurt.listen(self._host)

    def address(self, there: Address) -> Address:
        return replace(there, host=self._host)

    def cut(self) -> None:
        _run((*self._in_router(), "nft", "-f", "-"), text=_RULE)

    def restore(self) -> None:
        _run((*self._in_router(), "nft", "delete", "table", "ip", "cut"))

    def _in_router(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self._router)


class Proxy:
    """Passes bytes on; cut, it reads none and closes nothing, and hands on later what waited.

    What is sent meanwhile waits in the buffers of both ends, as what TCP has to send again does.

    Args:
        there: where the bytes go.
    """

    kind = "proxy"
    prefix: tuple[str, ...] = ()

    def __init__(self, there: Address) -> None:
        self._there = there
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open = threading.Event()
        self._open.set()
        self._ended = False
        self._sockets = [self._listener]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def address(self, there: Address) -> Address:
        return replace(there, host="127.0.0.1", port=self._listener.getsockname()[1])

    def cut(self) -> None:
        self._open.clear()

    def restore(self) -> None:
        self._open.set()

    def close(self) -> None:
        """End it with all its connections."""
        self._ended = True
        self._open.set()
        for each in tuple(self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in tuple(self._threads):
            thread.join(timeout=5)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                self._open.wait()
                far = socket.create_connection((self._there.host, self._there.port))
            except OSError:
                if self._ended:
                    return
                near.close()
                continue
            self._sockets += [near, far]
            for pair in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=self._pass, args=pair, daemon=True))
                self._threads[-1].start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        # A file that is closed has no number any more, of which select says ValueError.
        with contextlib.suppress(OSError, ValueError):
            while True:
                # Looked at without taking: what comes while it is cut stays where it is.
                select.select([source], [], [])
                self._open.wait()
                piece = source.recv(_PIECE_BYTES)
                if not piece:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(piece)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _make(command: tuple[str, ...]) -> None:
    try:
        _run(command)
    except subprocess.CalledProcessError as exc:
        raise NoNamespaces(f"{' '.join(command)}: {exc.stderr}") from exc


def _run(command: tuple[str, ...], *, text: str = "") -> None:
    subprocess.run(command, check=True, input=text, capture_output=True, text=True, timeout=20)


def _try(*command: str) -> None:
    subprocess.run(command, check=False, capture_output=True, timeout=20)
