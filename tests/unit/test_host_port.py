"""HOST:PORT as people write it."""

from __future__ import annotations

import re

import pytest

from broker.host_port import HOST_PORT_PATTERN, parse_host_port


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9808", ("127.0.0.1", 9808)),
        ("127.0.0.2:0", ("127.0.0.2", 0)),
        ("localhost:65535", ("localhost", 65535)),
        ("[::1]:9808", ("::1", 9808)),
    ],
)
def test_an_address_is_read(text: str, expected: tuple[str, int]) -> None:
    assert parse_host_port(text) == expected
    assert re.match(HOST_PORT_PATTERN, text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("9808", "is no HOST:PORT"),
        (":9808", "is no HOST:PORT"),
        ("", "is no HOST:PORT"),
        ("localhost:", "'' is no port"),
        ("localhost:http", "'http' is no port"),
        ("localhost:65536", "'65536' is no port"),
        ("localhost:-1", "'-1' is no port"),
        ("localhost:٨", "is no port"),
        ("::1:9808", "stands in brackets"),
        ("[]:9808", "names no host"),
        ("local host:9808", "names no host"),
    ],
)
def test_what_is_no_address_is_refused_with_a_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        parse_host_port(text)
