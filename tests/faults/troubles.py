"""What is done to a RabbitMQ of the tests' own, and undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.faults.conftest import Ground

Trouble = Callable[[Ground], AbstractContextManager[None]]


@contextmanager
def alarm(ground: Ground) -> Iterator[None]:
    """A memory alarm: RabbitMQ says so and reads nothing more."""
    ground.hurt.raise_alarm()
    try:
        yield
    finally:
        ground.hurt.lift_alarm()


@contextmanager
def silence(ground: Ground) -> Iterator[None]:
    """A RabbitMQ whose connections stay open and that answers nothing."""
    ground.hurt.pause()
    try:
        yield
    finally:
        ground.hurt.go_on()


@contextmanager
def death(ground: Ground) -> Iterator[None]:
    """A RabbitMQ that was killed."""
    ground.hurt.kill()
    try:
        yield
    finally:
        ground.hurt.start()
