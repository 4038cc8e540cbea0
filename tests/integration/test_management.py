"""The management API as it answers, and what answers in its place."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from broker.connection import Address
from broker.errors import (
    AccessRefused,
    BrokerUnavailable,
    MissingOnBroker,
    ProvisioningFailed,
    Unreachable,
    UnsupportedBroker,
)
from broker.management import Management, version_key

ODD_NAMES = [
    "a/b",
    "a~b",
    "100%",
    "%2F",
    "#?@&=",
    "a blank",
    "a+b",
    "a;b:c,d",
    "žluťoučký",
    "漢字🐇",
    "'\"\\",
    "...",
]

Answer = tuple[int, str, bytes]


@contextmanager
def server(answer: Callable[[str], Answer]) -> Iterator[str]:
    """Run a web server that is not RabbitMQ; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, content = answer(self.path)
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}"
        finally:
            http.shutdown()
            thread.join()


def at(url: str) -> Management:
    return Management(Address.parse("amqp://me:secret@localhost/", management_url=url))


def as_json(value: Any, status: int = 200) -> Callable[[str], Answer]:
    return lambda path: (status, "application/json", json.dumps(value).encode())


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_go_round(rabbitmq: Any, vhost: str, name: str) -> None:
    with Management(rabbitmq.address(vhost)) as management:
        arguments = {"x-queue-type": "classic"}
        management.put("queues", vhost, name, body={"durable": True, "arguments": arguments})
        assert management.get("queues", vhost, name)["name"] == name
        assert [queue["name"] for queue in management.get("queues", vhost)] == [name]
        assert management.delete("queues", vhost, name) is True
        assert management.delete("queues", vhost, name) is False
        assert management.find("queues", vhost, name) is None


def test_what_is_missing_is_named(rabbitmq: Any, vhost: str) -> None:
    with (
        Management(rabbitmq.address(vhost)) as management,
        pytest.raises(MissingOnBroker, match="has no queue 'gone'"),
    ):
        management.get("queues", vhost, "gone")


def test_a_refusal_carries_rabbitmqs_own_reason(rabbitmq: Any, vhost: str) -> None:
    with (
        Management(rabbitmq.address(vhost)) as management,
        pytest.raises(ProvisioningFailed, match=r"declare policy 'p': .*not recognised") as caught,
    ):
        management.put(
            "policies", vhost, "p", body={"pattern": "x", "definition": {"max-lenght": 1}}
        )
    assert caught.value.object == "policy 'p'"
    assert "max-lenght" in caught.value.reason


def test_a_wrong_password_is_refused_without_being_printed(rabbitmq: Any) -> None:
    address = replace(rabbitmq.address("/"), password="not-the-password")
    with Management(address) as management, pytest.raises(AccessRefused) as caught:
        management.version()
    assert "check the user and password" in str(caught.value)
    assert "not-the-password" not in str(caught.value)


def test_the_version_is_checked(rabbitmq: Any) -> None:
    with Management(rabbitmq.address("/")) as management:
        assert management.require("4.0") == rabbitmq.version
        with pytest.raises(UnsupportedBroker, match=r"the topology file requires 99\.1"):
            management.require("99.1")


def test_an_old_rabbitmq_is_refused() -> None:
    with (
        server(as_json({"rabbitmq_version": "3.13.7"})) as url,
        at(url) as management,
        pytest.raises(UnsupportedBroker, match=r"is 3.13.7, rabbitry requires 4.0"),
    ):
        management.require("4.3")


@pytest.mark.parametrize(
    "answer",
    [
        (200, "text/html", b"<h1>Hello</h1>"),
        (404, "text/html", b"not here"),
        (200, "application/json", b'{"version": "elasticsearch"}'),
        (200, "application/json", b"[]"),
        (200, "application/json", b"{"),
        (302, "text/html", b""),
        (400, "text/plain", b"Bad Request"),
    ],
)
def test_what_is_not_rabbitmq_is_said_to_be_something_else(answer: Answer) -> None:
    with (
        server(lambda path: answer) as url,
        at(url) as management,
        pytest.raises(UnsupportedBroker, match="is not RabbitMQ's management API"),
    ):
        management.version()


def test_an_error_of_the_server_is_told_with_its_status() -> None:
    with (
        server(as_json({"error": "internal", "reason": "badmatch"}, 500)) as url,
        at(url) as management,
        pytest.raises(BrokerUnavailable, match="HTTP 500: badmatch"),
    ):
        management.get("bindings", "/")


def test_nobody_there_names_the_address_and_the_way_out() -> None:
    with server(as_json({})) as url:
        pass
    with at(url) as management, pytest.raises(Unreachable) as caught:
        management.version()
    assert url in str(caught.value)
    assert "RABBITRY_MANAGEMENT_URL" in str(caught.value)


def test_silence_ends_at_the_timeout() -> None:
    silent = threading.Event()

    def answer(path: str) -> Answer:
        silent.wait(20)
        return 200, "application/json", b"{}"

    address = Address.parse("amqp://localhost/")
    with server(answer) as url:
        try:
            with (
                Management(replace(address, management_url=url), timeout_s=0.2) as management,
                pytest.raises(Unreachable, match="did not answer GET /api/overview in time"),
            ):
                management.version()
        finally:
            silent.set()


def test_a_connection_that_rabbitmq_may_be_closing_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s, clients = [1000.0], []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            clients.append(self.client_address)
            self.send_response(200)
            self.send_header("content-length", "2")
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    # How long a connection has been idle.
    clock = SimpleNamespace(monotonic=lambda: now_s[0])
    monkeypatch.setattr("httpcore._sync.http11.time", clock)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with at(f"http://127.0.0.1:{http.server_address[1]}") as management:
                for idle_s in (0.0, 1.0, 4.5):
                    now_s[0] += idle_s
                    assert management.get("queues") == []
        finally:
            http.shutdown()
            thread.join()
    first, second, third = clients
    assert first == second
    assert second != third


def test_a_proxy_in_the_environment_is_not_asked(
    rabbitmq: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Management(rabbitmq.address("/")) as management:
        assert management.version() == rabbitmq.version


def test_versions_are_compared_by_number() -> None:
    assert version_key("4.10.0") > version_key("4.9") > version_key("4.3.6-beta.1+deb")
    assert version_key("4.3.6") >= version_key("4.3")
