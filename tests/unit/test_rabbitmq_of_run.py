"""Which RabbitMQ the tests run against: one that is asked for is found, or the run fails."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from broker.local.state import Home
from tests.rabbitmq import (
    SERIES_VARIABLE,
    URL_VARIABLE,
    NoRabbitMQ,
    RabbitMQ,
    checked,
    find,
    is_asked_for,
)

FOUND = RabbitMQ("http://127.0.0.1:15672", "4.0.5", "a node", base_url="amqp://127.0.0.1/")


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", URL_VARIABLE, SERIES_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def test_nothing_is_asked_for_unless_a_variable_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_asked_for()
    monkeypatch.setenv(SERIES_VARIABLE, "4.0")
    assert is_asked_for()


def test_a_series_that_nobody_knows_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(SERIES_VARIABLE, "3.13")
    with (
        contextlib.ExitStack() as ending,
        pytest.raises(NoRabbitMQ, match=r"'3\.13'; there are: 4"),
    ):
        find(Home(tmp_path, tmp_path), ending, lambda text, fraction=None: None)


def test_another_series_than_the_one_that_is_asked_for_will_not_do() -> None:
    assert checked(FOUND, None) is FOUND
    assert checked(FOUND, "4.0") is FOUND
    with pytest.raises(NoRabbitMQ, match=r"is 4\.3, and a node is 4\.0\.5"):
        checked(FOUND, "4.3")
