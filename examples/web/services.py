"""What an application needs around it: RabbitMQ, its topology, one worker; and a server."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from io import BufferedIOBase
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from demo_services import LOOK_EVERY_S, Interruption, daemons, private_rabbitmq, rabbitry

from broker.connection import Address, resolve_address
from broker.errors import EXIT_FAILED, EXIT_INTERRUPTED, RabbitryError
from broker.topology import Topology
from rabbitry import Caller

EXAMPLES = Path(__file__).resolve().parents[1]
TOPOLOGY = Path(__file__).with_name("topology.yaml")
HOST, PORT = "127.0.0.1", 8000
# What runs the jobs, and the queue that it consumes.
WORKERS = {"web": "web.series"}


class Server(ThreadingMixIn, WSGIServer):
    """The standard library's server with a thread for each request: a stream keeps its own."""

    daemon_threads = True
    # Those who come at once wait to be accepted, rather than for their second attempt.
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went, or never said what they want."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Writer(BufferedIOBase):
    """Writes to a client, and takes one that accepts nothing for one that has gone."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def write(self, data: Any, /) -> int:
        """Send all of it."""
        try:
            self._connection.sendall(data)
        except TimeoutError:
            raise ConnectionAbortedError("the client accepts nothing") from None
        return len(data)


class Handler(WSGIRequestHandler):
    """Handles a request without a line on stderr for each."""

    # Whoever sends nothing, or accepts nothing, holds a thread no longer than this.
    timeout = 30

    def setup(self) -> None:
        """Prepare to read and to write."""
        super().setup()
        self.wfile = Writer(self.connection)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a stream of events is one request, and errors are answered."""


def make_caller() -> Caller:
    """Return a caller of the example's jobs, at RABBITRY_URL or the private RabbitMQ."""
    return Caller(Topology.load(TOPOLOGY))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a command the options of `run`."""
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"to serve at; 0 takes a free one (default: {PORT})"
    )
    parser.add_argument(
        "--no-worker",
        action="store_true",
        help="start none: it runs elsewhere, or nowhere to see what visitors are told then",
    )


def run(
    application: Callable[[], AbstractContextManager[Any]],
    *,
    port: int,
    worker: bool,
    paths: Sequence[Path] = (),
) -> int:
    """Start RabbitMQ unless RABBITRY_URL names one, apply the topology, start a worker and serve.

    Ctrl-C ends whatever was started.

    Args:
        application: gives the WSGI application as long as it serves; called once RabbitMQ's
            address is known, which it finds in RABBITRY_URL.
        port: to serve at; 0 takes a free one.
        worker: whether to start one.
        paths: folders that the worker imports from, besides this one's.

    Returns:
        The exit code.
    """
    interruption = Interruption()
    try:
        with (
            services(interruption, worker=worker, paths=paths) as look,
            application() as answers,
            serving(answers, port=port) as at,
        ):
            print(at, flush=True)
            print("Ctrl-C ends it, and everything that it started.", file=sys.stderr, flush=True)
            while True:
                look()
                time.sleep(LOOK_EVERY_S)
    except KeyboardInterrupt:
        print("Interrupted: everything that was started has been ended.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except RabbitryError as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return exc.exit_code
    except OSError as exc:
        print(f"Error: port {port}: {exc.strerror or exc}", file=sys.stderr)
        return EXIT_FAILED


@contextmanager
def services(
    interruption: Interruption, *, worker: bool, paths: Sequence[Path] = ()
) -> Iterator[Callable[[], None]]:
    """Have RabbitMQ with the topology, and the worker; yields what to call to look after them."""
    environment = {**os.environ, "RABBITRY_TOPOLOGY": str(TOPOLOGY)}
    environment.pop("RABBITRY_JSON", None)
    folders = [*map(str, (EXAMPLES, *paths)), os.environ.get("PYTHONPATH")]
    environment["PYTHONPATH"] = os.pathsep.join(folder for folder in folders if folder)
    with ExitStack() as stack:
        address = _rabbitmq(stack, environment, interruption)
        _say(f"RabbitMQ at {address.redacted}")
        rabbitry(
            *("topology", "apply", "--yes", "--topology", str(TOPOLOGY)),
            environment=environment,
            interruption=interruption,
        )
        _say(f"applied {TOPOLOGY.name} to virtual host {address.vhost_name!r}")
        running = []
        if worker:
            logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rabbitry-web-")))
            running = stack.enter_context(
                daemons(
                    WORKERS,
                    topology=TOPOLOGY,
                    address=address,
                    logs=logs,
                    environment=environment,
                    interruption=interruption,
                )
            )
            _say(f"one worker consumes {', '.join(WORKERS.values())}; it logs to {logs}")
        # For the caller, which is made in this process.
        os.environ["RABBITRY_URL"] = address.url

        def look() -> None:
            interruption.check()
            for daemon in running:
                daemon.check()

        yield look


def _rabbitmq(stack: ExitStack, environment: dict[str, str], interruption: Interruption) -> Address:
    given = environment.get("RABBITRY_URL")
    if not given:
        environment.pop("RABBITRY_MANAGEMENT_URL", None)
        given, _ = stack.enter_context(private_rabbitmq(environment, interruption))
    vhost = Topology.load(TOPOLOGY).vhost.name
    address = resolve_address(given, vhost=vhost, environ=environment)
    environment["RABBITRY_URL"] = address.url
    return address


@contextmanager
def serving(application: Any, *, port: int = 0, host: str = HOST) -> Iterator[str]:
    """Serve a WSGI application in threads until the end of the block; yields its address."""
    server = make_server(host, port, application, server_class=Server, handler_class=Handler)
    thread = threading.Thread(target=server.serve_forever, args=(LOOK_EVERY_S,), daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
