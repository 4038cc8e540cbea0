"""Answers probes and Prometheus: /livez, /readyz and /metrics, from a thread of a daemon's own.

One thread serves all clients, none waits for another, and none is waited for longer than
CLIENT_S. It asks nobody: what it tells stands in the daemon's memory.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from broker.errors import InvalidInput, WorkerError
from broker.host_port import parse_host_port

logger = logging.getLogger("rabbitry.health")

CLIENT_S = 5.0
_MOST_CLIENTS = 128
_MOST_HEAD_BYTES = 8192
# A task of pure Python holds the interpreter for so long at a time, and an answer takes several
# turns; 5 ms, as Python has it, would be tens of milliseconds for a probe.
_SWITCH_S = 0.0005
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a probe.

    Attributes:
        good: whether all is well: 200, else 503.
        document: what there is to say, as JSON has it.
    """

    good: bool
    document: Mapping[str, Any]


class Health:
    """A small HTTP server; bound when it is made, so that a port in use is known at once.

    Args:
        where: ``HOST:PORT``; port 0 takes a free one.
        live: answers /livez; quick, and called in the server's thread.
        ready: answers /readyz; likewise.
        registry: what /metrics shows.

    Raises:
        InvalidInput: that is no address.
        WorkerError: it cannot be listened at.
    """

    def __init__(
        self,
        where: str,
        *,
        live: Callable[[], Answer],
        ready: Callable[[], Answer],
        registry: CollectorRegistry,
    ) -> None:
        self._probes = {"/livez": live, "/readyz": ready}
        self._registry = registry
        self._clients = 0
        try:
            host, port = parse_host_port(where)
        except ValueError as exc:
            raise InvalidInput(f"health cannot be served: {exc}") from exc
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self._socket = _listening(socket.socket(family, kind, protocol), address)
        except OSError as exc:
            raise WorkerError(
                f"health cannot be served at {where}: {exc.strerror or exc}; stop what listens"
                " there, or give another address in `health:` or with --health"
            ) from exc
        self._socket.setblocking(False)
        # Children are forked, and would keep the port from the daemon that comes after.
        _close_in_children(self._socket)

    @property
    def port(self) -> int:
        """The port that it listens at."""
        return int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        """Where it is, without a path."""
        host = self._socket.getsockname()[0]
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def start(self) -> None:
        """Serve, until the process ends."""
        sys.setswitchinterval(_SWITCH_S)
        _start_thread(self._run)
        logger.info("health: %s/livez, /readyz, /metrics", self.url)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:
            logger.exception("health is not served any more")

    async def _serve(self) -> None:
        server = await asyncio.start_server(
            self._client, sock=self._socket, limit=_MOST_HEAD_BYTES, backlog=_MOST_CLIENTS
        )
        async with server:
            await server.serve_forever()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._clients >= _MOST_CLIENTS:
            writer.transport.abort()
            return
        self._clients += 1
        try:
            async with asyncio.timeout(CLIENT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._respond(head.decode("latin-1")))
                await writer.drain()
                # Ends the connection also where a child was forked meanwhile, and holds it.
                writer.write_eof()
                writer.close()
                await writer.wait_closed()
        # Whatever a client does concerns nobody else.
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()
        finally:
            self._clients -= 1

    def _respond(self, head: str) -> bytes:
        line, *fields = head.split("\r\n")
        words = line.split(" ")
        if len(words) != 3:
            return _response(400, "text/plain; charset=utf-8", b"no request\n")
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return _response(405, "text/plain; charset=utf-8", b"GET only\n")
        try:
            code, content_type, body = self._answer(target.partition("?")[0], fields)
        # A metric that cannot be collected must not end the thread.
        except Exception:
            logger.exception("%s could not be answered", target)
            code, content_type, body = 500, "text/plain; charset=utf-8", b"see the log\n"
        return _response(code, content_type, body, head_only=method == "HEAD")

    def _answer(self, path: str, fields: list[str]) -> tuple[int, str, bytes]:
        probe = self._probes.get(path)
        if probe is not None:
            answer = probe()
            body = json.dumps(answer.document, ensure_ascii=False).encode() + b"\n"
            return 200 if answer.good else 503, "application/json", body
        if path == "/metrics":
            accept = [value for name, value in map(_field, fields) if name == "accept"]
            encode, content_type = choose_encoder(",".join(accept))
            return 200, content_type, encode(self._registry)
        return 404, "text/plain; charset=utf-8", b"/livez, /readyz, /metrics\n"


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()


def _response(code: int, content_type: str, body: bytes, *, head_only: bool = False) -> bytes:
    head = (
        f"HTTP/1.1 {code} {_REASONS[code]}\r\n"
        f"Content-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (b"" if head_only else body)


def _start_thread(run: Callable[[], None]) -> None:
    """Start a thread of the system's, also where gevent has put greenlets in their place."""
    import _thread

    start: Callable[..., Any] = _thread.start_new_thread
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        start = monkey.get_original("_thread", "start_new_thread")
    start(run, ())


def _listening(sock: socket.socket, address: Any) -> socket.socket:
    try:
        # A port that an ended daemon has left a moment ago is free.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_MOST_CLIENTS)
    except OSError:
        sock.close()
        raise
    return sock


def _close_in_children(listening: socket.socket) -> None:
    # Nothing registered can be taken back: it must not keep the socket either.
    held = weakref.ref(listening)

    def close() -> None:
        if (here := held()) is not None:
            # Not `shutdown`, which would end it for the parent, too.
            os.close(here.detach())

    os.register_at_fork(after_in_child=close)
