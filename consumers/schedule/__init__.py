"""Jobs that recur: any number of schedulers, of which RabbitMQ lets one lead."""

from __future__ import annotations

__all__: list[str] = []
