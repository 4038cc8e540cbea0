"""`rabbitry topology`: what exists on the broker, as the file says.

Each module here adds its commands to the group; together they are the room's command line.
"""

from __future__ import annotations

from broker.topology.cli import drift, export, file, look, plan, rights, rollback
from broker.topology.cli.group import topology

__all__ = ["drift", "export", "file", "look", "plan", "rights", "rollback", "topology"]
