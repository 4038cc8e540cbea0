"""Whether RabbitMQ itself may take a job past its deadline for dead.

A deadline is a header, which the worker reads. As the message's time to live besides, it lets
RabbitMQ dead-letter what waits too long, also while no worker runs; but a message that RabbitMQ
delays would leave its delay when its time is up.

A call past its deadline is nobody's any more, and no dead letter: it has a time to live where
RabbitMQ drops what expires, and elsewhere its worker ends it.
"""

from __future__ import annotations

from producers.routes import Routes


def may_expire(routes: Routes, exchange: str, routing_key: str, *, calls: bool = False) -> bool:
    """Say whether jobs that are published there may have a time to live.

    Args:
        routes: of the topology.
        exchange, routing_key: where they are published.
        calls: whether they are calls.
    """
    if not routes.are_certain(exchange, routing_key):
        return False
    return all(
        ("dead-letter-exchange" in settings) is not calls and "delayed-retry-type" not in settings
        for _, settings in routes.settings(exchange, routing_key)
    )
