"""Generated policies: which settings hold for which objects, in RabbitMQ's patterns; pure.

At most one policy applies to an object, so there is one for each distinct set of settings,
and its pattern lists the names. RabbitMQ takes patterns of at most 1,024 bytes: a longer list
is cut into several policies, at places that stay where they are when other names come or go.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from broker.topology.objects import POLICY, Identity, Object, canonical

# Above what people give their own catch-all policies, below what they give an exception.
PRIORITY = 100
PATTERN_LIMIT_BYTES = 1024
# From half of the limit on, about one name in eight may end a list.
_SOFT_LIMIT_BYTES = PATTERN_LIMIT_BYTES // 2
_ONE_IN = 8

APPLY_TO = {
    "quorum": "quorum_queues",
    "classic": "classic_queues",
    "stream": "streams",
    "exchange": "exchanges",
}
_SPECIAL = re.compile(r"[\\^$.|?*+()\[\]{}]")
_GENERATED = re.compile(
    rf"(?P<owner>.+)\.generated\.(?:{'|'.join(APPLY_TO.values())})\.[0-9a-f]{{10}}(?:-[0-9a-f]{{6}})?"
)


class Settings:
    """Collects what each object is to have, and makes policies of it."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self._names: dict[tuple[str, str], list[str]] = {}
        self._definitions: dict[str, Mapping[str, Any]] = {}

    def add(self, name: str, *, type: str, definition: Mapping[str, Any]) -> None:
        """Say that an object is to have these policy settings.

        Args:
            name: of the queue or exchange.
            type: a key of `APPLY_TO`.
            definition: policy keys and values; none means no policy.
        """
        if definition:
            text = canonical(definition)
            self._definitions[text] = definition
            self._names.setdefault((APPLY_TO[type], text), []).append(name)

    def policies(self) -> Iterator[Object]:
        """Yield the policies, in an order that depends on nothing but their content."""
        for (apply_to, text), names in sorted(self._names.items()):
            base = f"{self.owner}.generated.{apply_to}.{_digest(text, 10)}"
            lists = list(split(sorted(names)))
            for part in lists:
                suffix = f"-{_digest(part[0], 6)}" if len(lists) > 1 else ""
                yield Object(
                    Identity(POLICY, (base + suffix,)),
                    {
                        "apply-to": apply_to,
                        "pattern": pattern(part),
                        "priority": PRIORITY,
                        "definition": dict(self._definitions[text]),
                    },
                    covers=tuple(part),
                )


def owner_of(policy: str) -> str | None:
    """Return the topology that generated a policy of this name, or None."""
    found = _GENERATED.fullmatch(policy)
    return found["owner"] if found else None


def pattern(names: Iterable[str]) -> str:
    """Return an anchored regular expression that matches these names and no other."""
    return f"^({'|'.join(escape(name) for name in names)})$"


def escape(name: str) -> str:
    """Return a name as a regular expression that matches it; Erlang's and Python's agree."""
    return _SPECIAL.sub(r"\\\g<0>", name)


def split(names: list[str]) -> Iterator[list[str]]:
    """Cut sorted names into lists whose patterns RabbitMQ takes; one list where all fit."""
    if _size(names) <= PATTERN_LIMIT_BYTES:
        yield names
        return
    part: list[str] = []
    for name in names:
        if part and (
            _size([*part, name]) > PATTERN_LIMIT_BYTES
            or (_size(part) > _SOFT_LIMIT_BYTES and int(_digest(name, 8), 16) % _ONE_IN == 0)
        ):
            yield part
            part = []
        part.append(name)
    yield part


def _size(names: list[str]) -> int:
    return len(pattern(names).encode())


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
