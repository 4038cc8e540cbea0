"""Rules about secrets: they belong in the environment or a file of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from broker.topology.lint.finding import Finding, finding
from broker.topology.model import Topology
from broker.topology.source import DataPath

_PASSWORD_IN_URI = re.compile(r"\w+://[^/@\s:]*:(?P<password>[^@/\s]+)@")
# RabbitMQ's own user, who may only log in from the machine itself.
_KNOWN_TO_ALL = "guest"
_HINT = "write ${VAR} or ${file:PATH} in its place"


def check_values(topology: Topology) -> Iterator[Finding]:
    """Yield passwords that stand in the file."""
    for name, user in topology.users.items():
        if user.password is not None and "${" not in user.password:
            text = f"the password stands here for all who read the file; {_HINT}"
            yield finding(("users", name, "password"), "plain-secret", text)
    found: list[tuple[DataPath, Any]] = [(("broker", "url"), topology.broker.url)]
    if topology.results is not None:
        found.append((("results", "backend"), topology.results.backend))
    for name, shovel in topology.shovels.items():
        found += [(("shovels", name, key), getattr(shovel, key)) for key in ("src_uri", "dest_uri")]
    for name, upstream in topology.federation.upstreams.items():
        found.append((("federation", "upstreams", name, "uri"), upstream.uri))
    found.append((("parameters",), topology.parameters))
    found.append((("global_parameters",), topology.global_parameters))
    for path, value in found:
        yield from _uris(value, path)


def _uris(value: Any, path: DataPath) -> Iterator[Finding]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _uris(inner, (*path, key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _uris(inner, (*path, index))
    elif isinstance(value, str):
        match = _PASSWORD_IN_URI.search(value)
        if match and "${" not in match["password"] and match["password"] != _KNOWN_TO_ALL:
            text = f"the password in this address stands here for all who read the file; {_HINT}"
            yield finding(path, "plain-secret", text)
