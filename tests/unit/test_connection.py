"""Where RabbitMQ is: URLs, the order in which they are looked for, and what is printed of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.connection import Address, resolve_address
from broker.errors import InvalidURL


@pytest.mark.parametrize(
    ("url", "host", "port", "user", "vhost", "management"),
    [
        ("amqp://localhost", "localhost", 5672, "guest", None, "http://localhost:15672"),
        ("amqp://localhost/", "localhost", 5672, "guest", None, "http://localhost:15672"),
        ("amqp://h/%2F", "h", 5672, "guest", "/", "http://h:15672"),
        ("amqp://u:p@h:25672/a%2Fb", "h", 25672, "u", "a/b", "http://h:35672"),
        ("amqps://h/x", "h", 5671, "guest", "x", "https://h:15671"),
        ("amqp://[::1]:5672/v", "::1", 5672, "guest", "v", "http://[::1]:15672"),
    ],
)
def test_urls_are_read_as_rabbitmq_reads_them(
    url: str, host: str, port: int, user: str, vhost: str | None, management: str
) -> None:
    address = Address.parse(url)
    assert (address.host, address.port, address.user) == (host, port, user)
    assert address.vhost == vhost
    assert address.management_url == management


@pytest.mark.parametrize("url", ["http://h/", "localhost", "amqp://", "amqp://h:port/", "amqp:/h"])
def test_urls_that_cannot_be_read_are_refused(url: str) -> None:
    with pytest.raises(InvalidURL):
        Address.parse(url)


@given(user=st.text(min_size=1), password=st.text(min_size=1), vhost=st.text(min_size=1))
def test_any_user_password_and_vhost_go_round(user: str, password: str, vhost: str) -> None:
    try:
        (user + password + vhost).encode()
    except UnicodeEncodeError:
        return  # lone surrogates are no text
    address = Address(host="h", port=1, user=user, password=password, vhost=vhost)
    again = Address.parse(address.url)
    assert (again.user, again.password, again.vhost) == (user, password, vhost)


def test_the_password_is_never_printed() -> None:
    address = Address.parse("amqp://me:s3cret@h/")
    assert "s3cret" not in repr(address)
    assert "s3cret" not in address.redacted
    assert address.redacted == "amqp://me:***@h:5672/"


def test_the_first_address_in_the_documented_order_is_taken() -> None:
    environ = {"RABBITRY_URL": "amqp://environment/"}

    def find(url: str | None, environ: dict[str, str], file: str | None, node: str | None) -> str:
        return resolve_address(
            url, file_url=lambda: file, environ=environ, private_url=lambda: node
        ).host

    assert find("amqp://option/", environ, "amqp://file/", "amqp://node/") == "option"
    assert find(None, environ, "amqp://file/", "amqp://node/") == "environment"
    assert find(None, {}, "amqp://file/", "amqp://node/") == "file"
    assert find(None, {}, None, "amqp://node/") == "node"
    assert find(None, {}, None, None) == "localhost"


def test_a_vhost_in_the_url_wins_over_the_files() -> None:
    assert resolve_address("amqp://h/", vhost="file", environ={}).vhost == "file"
    assert resolve_address("amqp://h/url", vhost="file", environ={}).vhost == "url"
    assert resolve_address("amqp://h/%2F", vhost="file", environ={}).vhost == "/"


def test_the_management_address_can_be_given() -> None:
    environ = {"RABBITRY_MANAGEMENT_URL": "https://elsewhere:443/"}
    assert resolve_address("amqp://h/", environ=environ).management_url == "https://elsewhere:443"
