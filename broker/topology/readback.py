"""What RabbitMQ has made of a change, held to what it answered."""

from __future__ import annotations

from dataclasses import replace

from broker.topology.changes import Change
from broker.topology.objects import Objects
from broker.topology.plan import differences


def still_wrong(change: Change, there: Objects) -> str:
    """Say what is not as a change wants it, or ""."""
    identity, found = change.identity, there.get(change.identity)
    if change.after is None:
        return f"RabbitMQ said that it deleted {identity}, but it is still there" if found else ""
    if found is None:
        return f"RabbitMQ said that it declared {identity}, but it is not there"
    wrong = replace(change, differences=differences(change.after, found)).shown_differences()
    if not wrong:
        return ""
    text = ", ".join(f"{each.attribute} is {each.before!r}, not {each.after!r}" for each in wrong)
    return f"RabbitMQ said that it declared {identity}, but {text}"
