"""A plain WSGI application that answers at once, and tells how far its jobs are.

`python examples/wsgi/app.py` starts it with everything that it needs. Behind another server it is
an `Application`, with a caller made in each of the server's processes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from web import requests
from web.calls import Calls
from web.events import STREAM_HEADERS
from web.services import add_options, make_caller, run

from broker.errors import RabbitryError

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Response = tuple[int, list[tuple[str, str]], Iterable[bytes]]

JSON = ("Content-Type", "application/json")


class Application:
    """The application over the calls of its process."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        try:
            status, headers, body = self._respond(environ)
        except RabbitryError as exc:
            status, document = requests.refusal(exc)
            status, headers, body = _json(status, document)
        start_response(f"{status} {HTTPStatus(status).phrase}", headers)
        return body

    def _respond(self, environ: dict[str, Any]) -> Response:
        match (environ["REQUEST_METHOD"], *environ.get("PATH_INFO", "/").strip("/").split("/")):
            case ("GET", ""):
                return _file(requests.PAGE, "text/html; charset=utf-8")
            case ("GET", "data", name) if name in requests.SAMPLES:
                return _file(requests.DATA / name, "text/csv")
            case ("POST", "jobs"):
                return self._submit(environ)
            case ("GET", "jobs", id):
                return _json(200, self._calls.state(id))
            case ("DELETE", "jobs", id):
                return _json(200, {"id": id, "given_up": self._calls.cancel(id)})
            case ("GET", "jobs", id, "events"):
                return self._events(environ, id)
            case _:
                return _json(404, {"error": "NotFound", "message": "nothing answers that here"})

    def _submit(self, environ: dict[str, Any]) -> Response:
        query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
        body = requests.read_body(environ["wsgi.input"], environ.get("CONTENT_LENGTH"))
        order = requests.read_order(body, query)
        id = self._calls.submit("web.lowess", order.series, **order.options)
        status, headers, answer = _json(202, {"id": id, "events": f"/jobs/{id}/events"})
        return status, [*headers, ("Location", f"/jobs/{id}")], answer

    def _events(self, environ: dict[str, Any], id: str) -> Response:
        after = requests.read_last_event(environ.get("HTTP_LAST_EVENT_ID"))
        return 200, [*STREAM_HEADERS.items()], self._calls.events(id, after=after)


def _json(status: int, document: dict[str, Any]) -> Response:
    body = json.dumps(document).encode()
    headers = [JSON, ("Content-Length", str(len(body)))]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append(("Retry-After", "5"))
    return status, headers, [body]


def _file(path: Path, content_type: str) -> Response:
    body = path.read_bytes()
    return 200, [("Content-Type", content_type), ("Content-Length", str(len(body)))], [body]


@contextmanager
def application() -> Iterator[Application]:
    """Give the application, with a caller that is closed in the end."""
    with make_caller() as caller:
        yield Application(Calls(caller))


def main() -> int:
    """Start everything and serve; returns the exit code."""
    parser = argparse.ArgumentParser(
        description="A plain WSGI application that hands its work to a job.",
        epilog="RABBITRY_URL names a RabbitMQ to use; without it a private one is started.",
    )
    add_options(parser)
    options = parser.parse_args()
    return run(application, port=options.port, worker=not options.no_worker)


if __name__ == "__main__":
    sys.exit(main())
