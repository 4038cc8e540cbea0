"""A large broker, made up: what a definitions export of hundreds or thousands of objects holds."""

from __future__ import annotations

from typing import Any

_TEAMS = ("orders", "billing", "shipping", "žluť", "a/b", "100%", "mail @ home", "c~d?e#f")
_HASH = "jCiHv8aE1Ar7F75QOQG2GSMny/eN/MyKa7ueEgoK1YT+fKdn"


def definitions(objects: int, *, vhost: str, users: str = "", policies: bool = True) -> Any:
    """Return definitions as RabbitMQ exports them.

    Args:
        objects: about how many exchanges, queues and bindings.
        vhost: where they are.
        users: prefix of the names of users; none, when empty.
        policies: whether people have written policies for them.
    """
    count = objects * 2 // 5
    exchanges = [
        {
            "name": f"{_TEAMS[index % len(_TEAMS)]}.{index}",
            "type": ("topic", "direct", "fanout", "headers")[index % 4],
            "durable": True,
            "auto_delete": False,
            "arguments": {"alternate-exchange": "amq.fanout"} if index % 50 == 0 else {},
        }
        for index in range(objects // 5)
    ]
    queues = [
        {
            "name": f"{_TEAMS[index % len(_TEAMS)]}.queue.{index}",
            "durable": True,
            "auto_delete": False,
            "arguments": _arguments(index),
        }
        for index in range(count)
    ]
    bindings = [
        {
            "source": exchanges[index % len(exchanges)]["name"],
            "destination": queues[index]["name"],
            "destination_type": "queue",
            "routing_key": f"{_TEAMS[index % len(_TEAMS)]}.#" if index % 4 == 0 else f"key {index}",
            "arguments": {"x-match": "all", "tenant": index} if index % 4 == 3 else {},
        }
        for index in range(count)
    ]
    written = [
        {
            "name": f"{team} policy",
            "pattern": f"^{''.join(c if c.isalnum() else '.' for c in team)}\\.queue\\.",
            "apply-to": "queues",
            "priority": priority,
            "definition": {"max-length": 10_000 * (priority + 1), "message-ttl": 86_400_000},
        }
        for priority, team in enumerate(_TEAMS)
    ]
    return {
        "rabbitmq_version": "4.3.6",
        "vhosts": [
            {
                "name": vhost,
                "limits": {"max-queues": 50_000},
                "metadata": {"description": "", "tags": [], "default_queue_type": "quorum"},
            }
        ],
        "users": [
            {
                "name": f"{users}{team}",
                "password_hash": _HASH,
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": ["management"] if index % 2 else [],
                "limits": {"max-connections": 100 + index},
            }
            for index, team in enumerate(_TEAMS)
            if users
        ],
        "permissions": [
            {
                "user": f"{users}{team}",
                "vhost": vhost,
                "configure": "^$",
                "write": f"^{team[:1]}",
                "read": ".*",
            }
            for team in _TEAMS
            if users
        ],
        "topic_permissions": [],
        # An import takes the limits from here, not from `vhosts`.
        "parameters": [
            {
                "component": "vhost-limits",
                "name": "limits",
                "vhost": vhost,
                "value": {"max-queues": 50_000},
            }
        ],
        "global_parameters": [{"name": "cluster_tags", "value": []}],
        "policies": [{**each, "vhost": vhost} for each in written] if policies else [],
        "exchanges": [{**each, "vhost": vhost} for each in exchanges],
        "queues": [{**each, "vhost": vhost} for each in queues],
        "bindings": [{**each, "vhost": vhost} for each in bindings],
    }


def _arguments(index: int) -> dict[str, Any]:
    # Classic, since thousands of quorum queues take minutes and gigabytes wherever they are.
    arguments: dict[str, Any] = {"x-queue-type": "classic"}
    if index % 3 == 0:
        arguments |= {"x-max-length": 1000 + index % 7, "x-dead-letter-exchange": "amq.topic"}
    if index % 5 == 0:
        arguments["x-single-active-consumer"] = True
    if index % 11 == 0:
        arguments |= {"x-expires": 604_800_000, "x-own/argument": [1, "two", {"three": 3.5}]}
    return arguments
