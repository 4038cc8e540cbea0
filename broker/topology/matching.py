"""Whether a binding takes a message, as RabbitMQ's own exchange types decide it; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from broker.topology.objects import canonical

KNOWN_TYPES = frozenset({"direct", "fanout", "topic", "headers"})


def takes(
    type_: str,
    *,
    binding_key: str,
    arguments: Mapping[str, Any],
    routing_key: str,
    headers: Mapping[str, Any],
) -> bool:
    """Say whether a binding of an exchange takes a message.

    Args:
        type_: of the exchange, one of `KNOWN_TYPES`.
        binding_key, arguments: of the binding.
        routing_key, headers: of the message.
    """
    if type_ == "fanout":
        return True
    if type_ == "direct":
        return binding_key == routing_key
    if type_ == "topic":
        return topic_matches(binding_key, routing_key)
    return headers_match(arguments, headers)


def topic_matches(pattern: str, key: str) -> bool:
    """Say whether a pattern matches a key: ``*`` is one word, ``#`` any number of them."""
    words = _words(key)
    # Which beginnings of the key the pattern matches so far, by their number of words.
    reached = {0}
    for part in _words(pattern):
        if part == "#":
            reached = set(range(min(reached), len(words) + 1))
        else:
            reached = {
                count + 1 for count in reached if count < len(words) and part in ("*", words[count])
            }
        if not reached:
            return False
    return len(words) in reached


def headers_match(arguments: Mapping[str, Any], headers: Mapping[str, Any]) -> bool:
    """Say whether the arguments of a binding match a message's headers.

    ``x-match`` is all, any, all-with-x or any-with-x; without ``-with-x`` arguments that begin
    with ``x-`` do not count. An argument without a value asks only for the header.
    """
    how = arguments.get("x-match", "all")
    matches = list(_header_matches(arguments, headers, with_x=how in ("all-with-x", "any-with-x")))
    return any(matches) if how in ("any", "any-with-x") else all(matches)


def _header_matches(
    arguments: Mapping[str, Any], headers: Mapping[str, Any], *, with_x: bool
) -> Iterator[bool]:
    for name, value in arguments.items():
        if name == "x-match" or (name.startswith("x-") and not with_x):
            continue
        # As text, since 1 is neither true nor 1.0 to RabbitMQ.
        yield name in headers and (value is None or canonical(value) == canonical(headers[name]))


def _words(text: str) -> list[str]:
    # The empty key has no word, not an empty one.
    return text.split(".") if text else []
