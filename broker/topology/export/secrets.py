"""Passwords in addresses: taken out of what is written, each replaced by a ``${VAR}``; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# The scheme and the user; what follows up to the @ is the password, percent-encoded.
_PASSWORD = re.compile(r"(?P<before>[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s:@]*:)(?P<pw>[^/?#\s@]+)(?=@)")


class Secrets:
    """Replaces passwords, and remembers which variable stands for which.

    Attributes:
        values: the passwords as they stood in the addresses, by the variable; never printed.
    """

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def hidden(self, value: Any, *name: str) -> Any:
        """Return a value for the file: no password in any address, and nothing that refers.

        Args:
            value: text, or mappings and lists with text somewhere in them.
            name: the words of the variable, such as the kind and name of the object.
        """
        if isinstance(value, str):
            return self._text(value, name)
        if isinstance(value, Mapping):
            return {key: self.hidden(inner, *name, str(key)) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.hidden(inner, *name) for inner in value]
        return value

    def _text(self, text: str, name: tuple[str, ...]) -> str:
        parts: list[str] = []
        end = 0
        for found in _PASSWORD.finditer(text):
            parts += [escaped(text[end : found.start("pw")]), f"${{{self._variable(found, name)}}}"]
            end = found.end()
        return "".join([*parts, escaped(text[end:])])

    def _variable(self, found: re.Match[str], name: tuple[str, ...]) -> str:
        words = re.sub(r"[^A-Za-z0-9]+", "_", "_".join(name)).strip("_").upper()
        base = variable = f"{words}_PASSWORD" if words[:1].isalpha() else f"P_{words}_PASSWORD"
        count = 1
        while self.values.get(variable, found["pw"]) != found["pw"]:
            count += 1
            variable = f"{base}_{count}"
        self.values[variable] = found["pw"]
        return variable


def escaped(value: Any) -> Any:
    """Return a value that the file reads as it is: ``${`` stands as ``$${``."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, Mapping):
        return {key: escaped(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [escaped(inner) for inner in value]
    return value
