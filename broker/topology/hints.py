"""How the file could say the same so that a queue or exchange need not be replaced; pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from broker.topology.changes import Difference
from broker.topology.objects import EXCHANGE, QUEUE, Object, canonical
from broker.topology.settings import SETTINGS

# Where an argument and a policy both say one of these, the lower value counts
# (https://www.rabbitmq.com/docs/parameters#policies); of others the argument's.
_LOWER_COUNTS = {"max-length", "max-length-bytes", "message-ttl", "expires", "delivery-limit"}


def hint_for(wanted: Object, found: Iterable[Difference]) -> str:
    """Return which policy key would bring all the differences about in place, or ""."""
    hints = []
    for each in found:
        text = _hint(wanted, each)
        if not text:
            # One that nothing avoids is enough for a replacement.
            return ""
        hints.append(text)
    return "; ".join(hints)


def _hint(wanted: Object, found: Difference) -> str:
    name = found.attribute.removeprefix("arguments.")
    if name == found.attribute:
        return ""
    if wanted.identity.kind == EXCHANGE:
        if name == "alternate-exchange" and found.before is None:
            return "the key `alternate_exchange` is a policy (alternate-exchange), set in place"
        return ""
    policy_key = name.removeprefix("x-")
    file_key = _file_key(wanted, policy_key)
    if wanted.identity.kind != QUEUE or file_key is None:
        return ""
    if found.before is None:
        return f"the key `{file_key}` is a policy ({policy_key}), set in place"
    if policy_key not in _LOWER_COUNTS:
        return ""
    if found.after is None:
        return (
            f"`arguments: {{{name}: {canonical(found.before)}}}` keeps the queue as it is, and"
            f" the key `{file_key}`, a policy ({policy_key}), can lower it in place"
        )
    if _lower(found.after, found.before):
        return (
            f"keep the argument and set the key `{file_key}`: the policy ({policy_key}) lowers"
            " it in place"
        )
    return ""


def _file_key(queue: Object, policy_key: str) -> str | None:
    type_ = queue.attributes.get("type")
    return next(
        (
            key
            for key, setting in SETTINGS.items()
            if setting.where == "policy" and setting.key == policy_key and type_ in setting.types
        ),
        None,
    )


def _lower(one: Any, other: Any) -> bool:
    return isinstance(one, int) and isinstance(other, int) and one < other
