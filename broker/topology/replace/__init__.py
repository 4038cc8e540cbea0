"""Replaces a queue or an exchange that RabbitMQ cannot change, without losing a message.

`broker.topology.replace.steps` tells the steps. Each is written down on RabbitMQ when it is
done and may be done twice, so that a run that was killed at any point is resumed by the next.
"""

from __future__ import annotations

from broker.topology.replace.record import Replacement, is_void, pending
from broker.topology.replace.record import delete as forget
from broker.topology.replace.run import replace, resume, rollback

__all__ = ["Replacement", "forget", "is_void", "pending", "replace", "resume", "rollback"]
