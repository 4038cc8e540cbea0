"""From RabbitMQ's arguments and policy keys back to the words of the file; pure.

The opposite of `broker.topology.compile`. What folds is compiled again and compared: a key that
would come to anything else than what is there stays as RabbitMQ has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from pydantic import ValidationError

from broker.topology.compile import policy_definition
from broker.topology.links import Shovel, Upstream, UpstreamMember
from broker.topology.model import Queue
from broker.topology.objects import canonical
from broker.topology.policies import pattern
from broker.topology.settings import EXCHANGE_SETTINGS, QUORUM, SETTINGS, stream_age
from broker.units import format_duration, format_size, milliseconds

_AGE = re.compile(r"(?P<count>[0-9]+)(?P<unit>[YMDhms])")
_AGE_UNIT = {
    "D": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}
_DURATIONS = frozenset(
    {"message-ttl", "expires", "consumer-timeout", "consumer-disconnected-timeout"}
    | {"delayed-retry-min", "delayed-retry-max"}
)
_SIZES = frozenset({"max-length-bytes", "stream-max-segment-size-bytes"})
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ALTERNATIVE = re.compile(r"(?:[^|\\]|\\.)+", re.DOTALL)
_RETRY = ("delayed-retry-type", "delayed-retry-min", "delayed-retry-max")


def _duration(value: int) -> timedelta:
    return timedelta(milliseconds=value)


def _age(value: str) -> timedelta:
    found = _AGE.fullmatch(value)
    if found is None or found["unit"] not in _AGE_UNIT:
        raise ValueError(f"{value!r} has no friendly form")
    return int(found["count"]) * _AGE_UNIT[found["unit"]]


_DECODE: Mapping[Callable[[Any], Any], Callable[[Any], Any]] = {
    milliseconds: _duration,
    stream_age: _age,
}


def fold_arguments(arguments: Mapping[str, Any], type_: str) -> dict[str, Any]:
    """Return the keys of a queue that its arguments come to; others stand under `arguments`.

    Args:
        arguments: without ``x-queue-type``.
        type_: of the queue.
    """
    rest = dict(arguments)
    folded: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        # False comes to no argument, so a False that is there cannot be folded.
        if setting.where == "argument" and type_ in setting.types and rest.get(setting.key):
            folded[name] = rest.pop(setting.key)
    return {**folded, **({"arguments": rest} if rest else {})}


def fold_policy(definition: Mapping[str, Any], type_: str) -> dict[str, Any] | None:
    """Return the keys of a queue that a generated policy's definition comes to.

    Args:
        definition: the policy's keys and values.
        type_: of the queue.

    Returns:
        Values as the model holds them, or None where they would compile to something else.
    """
    rest = dict(definition)
    folded: dict[str, Any] = {}
    try:
        if "delayed-retry-type" in rest and "delayed-retry-min" in rest:
            folded["retry"] = _retry(rest)
        if "dead-letter-exchange" in rest:
            folded["dead_letter"] = _dead_letter(rest, type_)
        for name, setting in SETTINGS.items():
            if setting.where == "policy" and setting.key in rest:
                decode = _DECODE.get(setting.encode, lambda value: value)
                folded[name] = decode(rest.pop(setting.key))
        queue = Queue.model_validate({"type": type_, **folded})
    except (ValidationError, ValueError, TypeError, OverflowError):
        return None
    if rest or canonical(policy_definition(queue)) != canonical(definition):
        return None
    return folded


def _retry(rest: dict[str, Any]) -> dict[str, Any]:
    kind, least, most = (rest.pop(key, None) for key in _RETRY)
    retry: dict[str, Any] = {"delay": _duration(least), "type": kind}
    if most is not None:
        retry["max_delay"] = _duration(most)
    # -1, for ever, is a `delivery_limit` only.
    if rest.get("delivery-limit", -1) >= 0:
        retry["limit"] = rest.pop("delivery-limit")
    return retry


def _dead_letter(rest: dict[str, Any], type_: str) -> dict[str, Any]:
    letter = {"exchange": rest.pop("dead-letter-exchange")}
    if "dead-letter-routing-key" in rest:
        letter["routing_key"] = rest.pop("dead-letter-routing-key")
    if type_ == QUORUM:
        strategy = rest.pop("dead-letter-strategy", None)
        if strategy == "at-least-once":
            # Comes with it, as does the strategy itself.
            rest.pop("overflow", None)
        else:
            letter["strategy"] = strategy
    return letter


def fold_exchange_policy(definition: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the keys of an exchange that a generated policy's definition comes to, or None."""
    names = {key: name for name, key in EXCHANGE_SETTINGS.items()}
    if definition.keys() - names.keys():
        return None
    return {names[key]: value for key, value in definition.items()}


def names_of(expression: str) -> list[str] | None:
    """Return the names that a generated policy's pattern lists, or None where it is another."""
    names = [
        _ESCAPED.sub(r"\1", found)
        for found in _ALTERNATIVE.findall(expression.removeprefix("^(").removesuffix(")$"))
    ]
    return names if pattern(names) == expression else None


def friendly_definition(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return a hand-written policy's definition with durations and sizes as people write them."""
    return {key: _friendly(key, definition[key]) for key in sorted(definition)}


def _friendly(key: str, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return value
    if key in _SIZES:
        return format_size(value)
    try:
        return format_duration(_duration(value)) if key in _DURATIONS else value
    except OverflowError:
        return value


def fold_link(
    model: type[Shovel] | type[Upstream] | type[UpstreamMember], value: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the keys of a shovel or upstream that a parameter's value comes to, or None.

    What has no key, or not in this form, stands under `arguments`.
    """
    folded: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, inner in sorted(value.items()):
        name = key.replace("-", "_")
        known = name in model.model_fields and name not in ("arguments", "protected")
        one = {name: _link_duration(name, inner)} if known else {}
        if known and _holds(model, one, {key: inner}):
            folded |= one
        else:
            rest[key] = inner
    if rest:
        folded["arguments"] = rest
    if not _holds(model, folded, value, whole=True):
        return None
    return model.model_validate(folded).model_dump(mode="json", exclude_unset=True)


def _link_duration(name: str, value: Any) -> Any:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value
    if name in ("expires", "message_ttl"):
        return timedelta(milliseconds=value)
    return timedelta(seconds=value) if name == "reconnect_delay" else value


def _holds(
    model: type[Shovel] | type[Upstream] | type[UpstreamMember],
    keys: Mapping[str, Any],
    value: Mapping[str, Any],
    *,
    whole: bool = False,
) -> bool:
    """Say whether keys come to a value; the keys that every one needs are made up unless whole."""
    needed = {"src_uri": "amqp://", "dest_uri": "amqp://", "uri": "amqp://", "upstream": "u"}
    filled = {name: text for name, text in needed.items() if name in model.model_fields}
    try:
        made = model.model_validate(dict(keys) if whole else {**filled, **keys}).value()
    except (ValidationError, OverflowError):
        return False
    if not whole:
        made = {key: made[key] for key in value if key in made}
    return canonical(made) == canonical(value)
