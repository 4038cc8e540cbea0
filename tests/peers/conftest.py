"""Plain Celery on a RabbitMQ of the run, or on one that may be hurt; all of it takes long."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.connection import Address
from broker.management import Management
from tests.faults.conftest import hurt
from tests.faults.nodes import Hurt
from tests.peers.plain import Plain
from tests.rabbitmq import RabbitMQ

__all__ = ["hurt"]


@contextmanager
def plain_on(address: Address, folder: Path) -> Iterator[Plain]:
    """Plain Celery in a fresh virtual host, gone afterwards."""
    own = address.with_vhost(f"plain-{uuid.uuid4().hex[:8]}")
    with Management(address) as management:
        # What a virtual host comes with.
        management.put("vhosts", own.vhost_name, body={"default_queue_type": "classic"})
        found = Plain(own, folder)
        try:
            yield found
        finally:
            found.end()
            management.delete("vhosts", own.vhost_name)


@pytest.fixture
def plain(rabbitmq: RabbitMQ, tmp_path: Path) -> Iterator[Plain]:
    """Plain Celery on the RabbitMQ of the run."""
    with plain_on(rabbitmq.address(), tmp_path) as found:
        yield found


@pytest.fixture
def plain_hurt(hurt: Hurt, tmp_path: Path) -> Iterator[Plain]:
    """Plain Celery on a RabbitMQ that may be hurt."""
    with plain_on(hurt.address, tmp_path) as found:
        yield found
