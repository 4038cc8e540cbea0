"""Moves messages by a dynamic shovel: within RabbitMQ, many at a time, also while nobody looks.

https://www.rabbitmq.com/docs/shovel-dynamic
"""

from __future__ import annotations

import time
from urllib.parse import quote

from broker.errors import AccessRefused, ProvisioningFailed
from broker.topology.objects import QUEUE, Identity
from broker.topology.ownership import REPLACE_PREFIX
from broker.topology.replace.site import Site
from broker.topology.replace.steps import Helpers

POLL_S = 0.1
STALLED_S = 10.0


def move_by_shovel(site: Site, source: str, exchange: str) -> bool:
    """Move what is ready in a queue, where RabbitMQ has the plugin and the user the right.

    A shovel of an earlier run, which was killed, is waited for.

    Args:
        site: where.
        source: a queue without consumers: a shovel counts, and would wait for what they took.
        exchange: leads to the queue that gets the messages, whatever their keys.

    Returns:
        Whether the shovel came to its end; what it did not move is where it was.
    """
    name = _name(source)
    if not _running(site, name):
        # Without user and password: within RabbitMQ no connection and no secret is needed.
        uri = f"amqp:///{quote(site.vhost, safe='')}"
        value = {
            "src-protocol": "amqp091",
            "src-uri": uri,
            "src-queue": source,
            "src-delete-after": "queue-length",
            "dest-protocol": "amqp091",
            "dest-uri": uri,
            "dest-exchange": exchange,
            "ack-mode": "on-confirm",
        }
        body = {"component": "shovel", "vhost": site.vhost, "name": name, "value": value}
        try:
            site.management.put("parameters", "shovel", site.vhost, name, body=body)
        except (ProvisioningFailed, AccessRefused):
            return False
    return finish_shovel(site, source)


def finish_shovel(site: Site, source: str) -> bool:
    """Wait until the shovel of a queue has ended, and end one that stands still.

    Returns:
        Whether it came to its end by itself.
    """
    name = _name(source)
    left, since = -1, time.monotonic()
    while _running(site, name):
        ready = site.ready(source)
        messages = ready.messages if ready else 0
        if messages != left:
            left, since = messages, time.monotonic()
        elif time.monotonic() - since > STALLED_S:
            # Nothing has moved for so long that nothing is under way.
            site.management.delete("parameters", "shovel", site.vhost, name)
            return False
        time.sleep(POLL_S)
    return True


def _name(source: str) -> str:
    # A shovel of somebody else may well have the name of the queue.
    if source.startswith(REPLACE_PREFIX):
        return source
    return Helpers.of(Identity(QUEUE, (source,))).base


def _running(site: Site, name: str) -> bool:
    answers = site.management.get("parameters", "shovel", site.vhost)
    return any(answer["name"] == name for answer in answers)
